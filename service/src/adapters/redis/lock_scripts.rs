//! The scripts that claim and release a lock, one by one or many in a round trip.
//!
//! None reads more of a value than what one of ours can have, and one byte: somebody may have put a hundred megabytes there.

use std::sync::LazyLock;

use super::script::Lua;

/// Keys: lock, selected chat. Arguments: owner, TTL in ms, the value that may be overwritten. Answers with 1 and the chat, 0 and
/// the holder, or 2 and why the lock's key is refused. What is no chat counts as none.
pub(super) static CLAIM: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local held = redis.pcall('GETRANGE', KEYS[1], 0, 257)\n\
         if type(held) == 'table' then return {2, held.err} end\n\
         if held ~= '' and #held <= 257 and held ~= ARGV[1] and held ~= ARGV[3] then return {0, held} end\n\
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n\
         local chat = redis.pcall('GETRANGE', KEYS[2], 0, 256)\n\
         if type(chat) == 'table' or chat == '' or #chat > 256 then chat = false end\n\
         return {1, chat}",
    )
});

/// Keys: lock. Arguments: owner.
pub(super) static RELEASE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new("if redis.pcall('GETRANGE', KEYS[1], 0, 257) == ARGV[1] then return redis.call('DEL', KEYS[1]) end\nreturn 0")
});
