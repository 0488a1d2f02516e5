//! The files that a QEMU was started with, taken from its command line.
//!
//! libvirt gives each file to QEMU as a block node: `-blockdev {"driver":"file","filename":"/a/b",
//! "node-name":"libvirt-1-storage",...}`. The number in the node's name is never used twice during a run
//! of a VM. The domain's XML has it as `<source index='1'/>` (qemuBlockStorageSourceGetBackendProps,
//! virStorageSource.id).

use std::path::PathBuf;

/// One file with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockNode {
    /// The `index` in the XML.
    pub number: u32,
    /// The file's absolute path.
    pub path: PathBuf,
}

/// Finds the nodes on a command line. Each argument ends with NUL.
pub(super) fn parse(line: &[u8]) -> Vec<BlockNode> {
    let mut nodes = Vec::new();
    let mut arguments = line.split(|byte| *byte == 0);
    while let Some(argument) = arguments.next() {
        if argument == b"-blockdev" {
            let json = arguments.next().and_then(|json| str::from_utf8(json).ok());
            nodes.extend(json.and_then(block_node));
        }
    }
    nodes
}

fn block_node(json: &str) -> Option<BlockNode> {
    let name = string(json, "node-name")?;
    let number = name.strip_prefix("libvirt-")?.strip_suffix("-storage")?;
    let path = string(json, "filename").filter(|path| path.starts_with('/'))?;
    Some(BlockNode {
        number: number.parse().ok()?,
        path: path.into(),
    })
}

/// The string with this key. The key occurs once in the object, nested or not. A quotation mark inside
/// a string has a backslash before it, so no part of a string is taken for a key. `None` if the value has
/// an escape of more than one character.
fn string(json: &str, key: &str) -> Option<String> {
    let (_, value) = json.split_once(&format!("\"{key}\":\""))?;
    let mut text = String::new();
    let mut characters = value.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => match characters.next()? {
                same @ ('"' | '\\' | '/') => text.push(same),
                _ => return None,
            },
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_with_the_numbers_of_their_nodes() {
        let arguments = [
            "qemu-system-x86_64",
            "-blockdev",
            r#"{"driver":"file","filename":"/pool/a \"b\" \\c.img","node-name":"libvirt-12-storage","discard":"unmap"}"#,
            "-blockdev",
            r#"{"node-name":"libvirt-12-format","driver":"raw","file":"libvirt-12-storage"}"#,
            "-blockdev",
            r#"{"driver":"host_device","filename":"\/dev\/vg0\/lv1","node-name":"libvirt-1-storage"}"#,
            "-blockdev",
            r#"{"driver":"file","filename":"/code.fd","node-name":"libvirt-pflash0-storage"}"#,
            "-blockdev",
            r#"{"driver":"file","filename":"/a\u00e9","node-name":"libvirt-3-storage"}"#,
            "-blockdev",
            r#"{"driver":"nbd","server":{"type":"inet"},"node-name":"libvirt-4-storage"}"#,
            "-name",
            r#"{"driver":"file","filename":"/no","node-name":"libvirt-5-storage"}"#,
            "-blockdev",
        ];
        let node = |number, path: &str| BlockNode {
            number,
            path: path.into(),
        };
        let expected = [node(12, r#"/pool/a "b" \c.img"#), node(1, "/dev/vg0/lv1")];
        assert_eq!(parse(arguments.join("\0").as_bytes()), expected);
    }

    #[test]
    fn a_file_name_that_looks_like_a_key_is_not_taken_for_one() {
        let name = r#"/x\",\"filename\":\"/no"#;
        let json =
            format!(r#"{{"driver":"file","filename":"{name}","node-name":"libvirt-1-storage"}}"#);
        let expected = r#"/x","filename":"/no"#;
        assert_eq!(
            block_node(&json).map(|node| node.path),
            Some(expected.into())
        );
    }
}
