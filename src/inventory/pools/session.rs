//! The calls for pools.

use quick_xml::events::Event;
use smol_str::SmolStr;
use uuid::Uuid;

use crate::inventory::worker;
use crate::libvirt::{Connection, Error, PoolInfo, StoragePool};
use crate::maps::HashMap;

/// What a worker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// All pools.
    List,
    /// One pool, and its type if that is not known yet.
    Pool {
        /// The pool.
        uuid: Uuid,
        /// Whether its type is wanted.
        reads_type: bool,
    },
}

/// What it answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// UUID and name of each pool.
    List(Vec<(Uuid, SmolStr)>),
    /// State, sizes, and the type if that was wanted.
    Pool(PoolInfo, Option<SmolStr>),
    /// There is no such pool any more.
    Gone,
}

/// A connection with the handles that belong to it.
pub(super) struct Session {
    handles: HashMap<Uuid, StoragePool>,
    connection: Connection,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            handles: HashMap::default(),
            connection,
        }
    }

    fn pool(&mut self, uuid: Uuid, reads_type: bool) -> Result<Answer, Error> {
        let pool = match self.handles.remove(&uuid) {
            Some(pool) => pool,
            None => self.connection.storage_pool(uuid)?,
        };
        let info = pool.info()?;
        let kind = match reads_type {
            true => Some(type_of(&pool.xml()?)),
            false => None,
        };
        self.handles.insert(uuid, pool);
        Ok(Answer::Pool(info, kind))
    }
}

impl worker::Session for Session {
    type Request = Request;
    type Answer = Answer;

    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Error> {
        match *request {
            Request::List => {
                let pools = self.connection.storage_pools()?;
                self.handles = pools.into_iter().map(|pool| (pool.uuid(), pool)).collect();
                let named = self.handles.iter();
                let named = named.map(|(uuid, pool)| (*uuid, pool.name().into()));
                Ok(Answer::List(named.collect()))
            }
            Request::Pool { uuid, reads_type } => match self.pool(uuid, reads_type) {
                Err(error) if error.is_no_pool() => Ok(Answer::Gone),
                other => other,
            },
        }
    }
}

/// The type of a pool: an attribute of the root of its XML. Empty if there is none.
fn type_of(xml: &str) -> SmolStr {
    let mut reader = quick_xml::Reader::from_str(xml);
    loop {
        match reader.read_event() {
            Ok(Event::Start(root) | Event::Empty(root)) => {
                let attribute = root.try_get_attribute("type").ok().flatten();
                let value = attribute.map(|it| it.value.into_owned());
                return value.unwrap_or_default().into();
            }
            Ok(Event::Eof) | Err(_) => return SmolStr::default(),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::worker::Session as _;
    use crate::libvirt::testing::connect;

    #[test]
    fn the_type_is_an_attribute_of_the_root() {
        let comment = "<?xml version='1.0'?><!-- <pool type='a'> -->";
        let pool = "<pool type='dir'><source><format type='b'/></source></pool>";
        assert_eq!(type_of(pool), "dir");
        assert_eq!(type_of(&[comment, pool].concat()), "dir");
        assert_eq!(type_of("<pool type='rbd'/>"), "rbd");
        for other in ["<pool><format type='b'/></pool>", "", "<", "text"] {
            assert_eq!(type_of(other), "", "{other}");
        }
    }

    #[test]
    fn the_test_drivers_pool_is_listed_and_asked() {
        let mut session = Session::new(connect("test:///default"));
        let Answer::List(pools) = session.answer(&Request::List).unwrap() else {
            panic!("no list");
        };
        let (uuid, name) = &pools[0];
        assert_eq!((pools.len(), name.as_str()), (1, "default-pool"));
        let request = |uuid, reads_type| Request::Pool { uuid, reads_type };
        for reads_type in [true, false] {
            let answer = session.answer(&request(*uuid, reads_type)).unwrap();
            let Answer::Pool(info, kind) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(kind.as_deref(), reads_type.then_some("dir"));
            let sum = info.allocation + info.available;
            assert_eq!((info.state, info.capacity), (2, sum));
        }
        let gone = session.answer(&request(Uuid::nil(), true)).unwrap();
        assert!(matches!(gone, Answer::Gone), "{gone:?}");
    }
}
