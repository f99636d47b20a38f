//! One suite a port, run on the memory backend and on the real one: both must keep the same promises.

mod peers;
