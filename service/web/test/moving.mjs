// What the tests of moves begin with: a session that is up, one that is asked to move, and the frames of both.
import assert from "node:assert/strict";
import { FakeSocket, client, settle } from "./support.mjs";

export const READY = { pod_id: "p1", stream: "s1", safe: 40 };
export const RESUMED = { ...READY, pod_id: "p2", resumed: true, replayed: 0 };
export const MOVE = { type: "move", payload: { within_ms: 15000, reason: "drain" } };
export const query = (name, socket = FakeSocket.last) => new URL(socket.url).searchParams.get(name);
export const select = (chat_id) => ({ type: "select_chat", payload: { chat_id } });
export const selected = (chat_id) => ({ type: "chat_selected", payload: { chat_id } });

/** A client whose session is up; what it said until then is forgotten. */
export async function up(options, ready = READY) {
  const made = await client(options);
  FakeSocket.last.ready(ready);
  made.log.length = 0;
  return { ...made, first: FakeSocket.last, types: () => made.log.map(([type]) => type) };
}

/** As {@link up}, and asked to move: the second socket is on its way. */
export async function moving(options, ready) {
  const made = await up(options, ready);
  made.first.says(MOVE);
  await settle();
  assert.equal(FakeSocket.all.length, 2);
  return { ...made, second: FakeSocket.last };
}
