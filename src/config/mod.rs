//! The configuration: file as written -> validated settings.
