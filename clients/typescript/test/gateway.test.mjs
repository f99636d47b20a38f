// What a page of many parts asks of its session: `ready` without a listener, and one chat for several who want one.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Gateway, GatewayClosed, connect } from "../dist/gateway.js";
import { FakeSocket, advance, reset, settle } from "../../../service/web/test/support.mjs";
import { READY, RESUMED, query, select, selected } from "../../../service/web/test/moving.mjs";

beforeEach(() => reset());
const options = { url: "wss://desk.test/ws/acme/a1", apiKey: "key", token: "token", WebSocket: FakeSocket, random: () => 1, fetch: async () => ({ headers: new Map() }) };

async function up(more = {}, ready = READY) {
  const gateway = connect({ ...options, ...more });
  await settle();
  FakeSocket.last.ready(ready);
  return gateway;
}
/** What was asked for, each answered. */
function answered(socket = FakeSocket.last) {
  return socket.sent.splice(0).map(({ payload }) => {
    socket.says(selected(payload.chat_id));
    return payload.chat_id;
  });
}

test("ready waits for the session, is there while it is, and waits again after it was lost", async () => {
  const gateway = new Gateway(options);
  const told = [];
  gateway.ready.then((it) => told.push(it));
  await settle();
  assert.deepEqual(told, []);
  gateway.connect();
  await settle();
  FakeSocket.last.ready(READY);
  await settle();
  assert.deepEqual(told, [gateway]);
  assert.equal(await gateway.ready, gateway);
  FakeSocket.last.ends(1006);
  gateway.ready.then(() => told.push("again"));
  await advance(500);
  assert.equal(told.length, 1);
  FakeSocket.last.ready(RESUMED);
  await settle();
  assert.equal(told[1], "again");
});

test("ready fails when the session ends for good, and not when it is lost", async () => {
  const gateway = connect(options);
  const waiting = assert.rejects(gateway.ready, (error) => error instanceof GatewayClosed && error.code === 4402 && error.reason === "session-replaced");
  await settle();
  FakeSocket.last.ends(1006);
  await advance(500);
  FakeSocket.last.ends(4402, "session-replaced");
  await waiting;
});

test("the chat that was asked for last is selected, and the one before when it is let go of", async () => {
  const gateway = await up();
  const first = gateway.wantChat("c1");
  const second = gateway.wantChat("c2");
  const third = gateway.wantChat("c3");
  assert.deepEqual(answered(), ["c1", "c2", "c3"]);
  // One below the top goes without a word.
  second();
  assert.deepEqual(answered(), []);
  third();
  third();
  assert.deepEqual(answered(), ["c1"]);
  // A gateway can't select none.
  first();
  assert.deepEqual([answered(), gateway.chat], [[], "c1"]);
});

test("two who ask for the same chat cost one selection, and it stays until both have let go", async () => {
  const gateway = await up();
  gateway.selectChat("c0");
  const [one, two] = [gateway.wantChat("c1"), gateway.wantChat("c1")];
  assert.deepEqual(answered(), ["c0", "c1"]);
  two();
  assert.deepEqual(answered(), []);
  one();
  assert.deepEqual(answered(), ["c0"]);
});

test("selectChat chooses what is below all wishes", async () => {
  const gateway = await up({ chat: "c0" }, { ...READY, chat_id: "c0" });
  const release = gateway.wantChat("c1");
  gateway.selectChat("c2");
  assert.deepEqual(answered(), ["c1"]);
  release();
  assert.deepEqual(answered(), ["c2"]);
});

test("a signal lets go of a wish, and one that is aborted makes none", async () => {
  const gateway = await up();
  gateway.selectChat("c0");
  const control = new AbortController();
  gateway.wantChat("c1", control.signal);
  assert.deepEqual(answered(), ["c0", "c1"]);
  control.abort();
  gateway.wantChat("c2", control.signal);
  assert.deepEqual(answered(), ["c0"]);
});

test("a wish for a chat that is refused is forgotten, and the one before has its chat", async () => {
  const gateway = await up();
  gateway.wantChat("c1");
  assert.deepEqual(answered(), ["c1"]);
  const release = gateway.wantChat("no chat");
  FakeSocket.last.sent = [];
  FakeSocket.last.says({ type: "error", payload: { code: "BadRequest", message: "no" } });
  assert.equal(gateway.chat, "c1");
  release();
  gateway.wantChat("c3")();
  assert.deepEqual(answered(), ["c3", "c1"]);
});

test("wishes that were made while there was no session are met with the next one", async () => {
  const gateway = await up();
  FakeSocket.last.ends(1006);
  gateway.wantChat("c1");
  await advance(500);
  FakeSocket.last.ready(RESUMED);
  assert.deepEqual([query("chat"), FakeSocket.last.sent], [null, [select("c1")]]);
});
