//! Line protocol: escaping and numbers, and nowhere else.
