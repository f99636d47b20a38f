// Realistic events of a messaging desk, with a new id, time and text each.

export const COMPANY = "acme";
export const AGENT = "agent-7";

export const CHATS = [
  ["62811200345@s.whatsapp.net", "Ibu Sari · 62811200345"],
  ["62812777100@s.whatsapp.net", "Pak Dedi · 62812777100"],
  ["120363041@g.us", "Gudang Jakarta (group)"],
];

/** Who may open a socket. */
export const PEOPLE = {
  sari: { kind: "user", name: "sari", label: "Sari (user)" },
  budi: { kind: "user", name: "budi", label: "Budi (user)" },
  dewi: { kind: "user", name: "dewi", label: "Dewi (user)" },
  root: { kind: "admin", name: "root", label: "Root (admin)" },
  audit: { kind: "admin", name: "audit", label: "Audit (admin)" },
};

export const TEXTS = ["Halo kak, pesanan #4471 sudah dikirim? 🙏", "Baik, saya cek dulu ya", "Resinya JT-88120934", "Terima kasih banyak!", "Bisa ganti alamat?"];

export const AUDIENCE = {
  messages: "Reaches the users of acme/agent-7 that selected this chat.",
  chats: "Reaches every user of acme/agent-7.",
  agents: "Reaches every admin, on every pod.",
};

export const subject = (kind, chat) => `wa.${COMPANY}.${AGENT}.${kind}${kind === "messages" ? `.${chat}` : ""}`;

export function event(kind, chat, text) {
  const now = new Date();
  const id = `${now.getTime().toString(16)}-${Math.floor(Math.random() * 65536).toString(16)}`;
  const head = { event_id: `26/${id}:${kind}`, event_time: now.toISOString(), company_id: COMPANY, agent_id: AGENT };
  const row = { agent_id: AGENT, company_id: COMPANY, updated_at: now.toISOString() };
  if (kind === "agents") {
    return { ...head, row_data: { id: 11223, ...row, status: "online", agent_name: "Support desk 7", host_name: "wa-node-3", version: "2.14.1" } };
  }
  const number = chat.split("@")[0];
  if (kind === "chats") {
    return { ...head, chat_id: chat, row_data: { id: 67890, chat_id: chat, ...row, jid: chat, push_name: "sari 🌸", unread_count: 3, last_message: { text }, phone_number: number } };
  }
  return {
    ...head, message_id: `msg-${id}`, chat_id: chat,
    row_data: { id: 90210, message_id: `msg-${id}`, chat_id: chat, ...row, from: chat, to: AGENT, flow: "inbound", message_obj: { conversation: text }, status: "delivered" },
  };
}

/** One line about an event that arrived. */
export function summary(payload) {
  const row = payload.row_data ?? {};
  const text = row.message_obj?.conversation ?? row.last_message?.text ?? row.status ?? row.text;
  const what = { message: "message", chat: "chat", agent: "agent" }[payload.event_type] ?? payload.event_type;
  return text ? `${what}: ${text}` : `${what} ${payload.event_id ?? ""}`;
}
