import { createContext, createElement, useContext, useEffect, useRef, useState, useSyncExternalStore } from "react";
import type { GatewayEventMap, GatewayState } from "./types.js";

/** Any client of this package, as far as the hooks use it. */
export interface HookClient {
  readonly state: GatewayState;
  connect(): unknown;
  close(): void;
  selectChat(chat: string): void;
  wantChat?(chat: string): () => void;
  addEventListener(type: string, listener: (event: any) => void): void;
  removeEventListener(type: string, listener: (event: any) => void): void;
}

const Held = createContext<HookClient | null>(null);

/** Opens the session while it is mounted, and gives the client to what is below. Rendered on a server, it opens none. */
export function GatewayProvider({ client, children }: { client: HookClient; children?: any }): { type: any; props: any; key: string | null } {
  const closing = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => {
    clearTimeout(closing.current);
    client.connect();
    return () => {
      // Strict mode takes every component away and brings it back in the same turn: that is no reason to end a session.
      closing.current = setTimeout(() => client.close());
    };
  }, [client]);
  return createElement(Held.Provider, { value: client }, children);
}

/** The client that the provider above was given. */
export function useGateway<Client extends HookClient = HookClient>(): Client {
  const client = useContext(Held);
  if (!client) {
    throw new Error("there is no GatewayProvider above");
  }
  return client as Client;
}

/** Calls the listener, the one of the last rendering, with what the client tells of this type. */
export function useGatewayEvent<Type extends keyof GatewayEventMap<Payload>, Payload = Record<string, unknown>>(
  type: Type,
  listener: (detail: GatewayEventMap<Payload>[Type]["detail"]) => void,
): void {
  const client = useGateway();
  const last = useRef(listener);
  useEffect(() => {
    last.current = listener;
  });
  useEffect(() => {
    const heard = ({ detail }: { detail: GatewayEventMap<Payload>[Type]["detail"] }): void => last.current(detail);
    client.addEventListener(type, heard);
    return () => client.removeEventListener(type, heard);
  }, [client, type]);
}

/** Calls the listener with each event of the stream. */
export function useEvents<Payload = Record<string, unknown>>(listener: (detail: GatewayEventMap<Payload>["event"]["detail"]) => void): void {
  useGatewayEvent<"event", Payload>("event", listener);
}

/** `connecting`, `ready`, `waiting` or `closed`, which it is on a server. */
export function useConnectionState(): GatewayState {
  const client = useGateway();
  const subscribe = useRef<{ of: HookClient; to: (changed: () => void) => () => void } | null>(null);
  if (subscribe.current?.of !== client) {
    subscribe.current = {
      of: client,
      to: (changed) => {
        client.addEventListener("state", changed);
        return () => client.removeEventListener("state", changed);
      },
    };
  }
  return useSyncExternalStore(subscribe.current.to, () => client.state, () => "closed");
}

/**
 * Asks for the messages of this chat while it is mounted, and says whether they flow. Where several ask, the client's rule says who
 * has the chat; with a client that has none, who asked last.
 */
export function useChat(chat: string | null | undefined): boolean {
  const client = useGateway();
  const [inForce, setInForce] = useState<string | null>(null);
  useGatewayEvent("chat", ({ chat_id }) => setInForce(chat_id));
  useGatewayEvent("state", ({ state }) => state === "ready" || setInForce(null));
  useEffect(() => {
    if (!chat) {
      return undefined;
    }
    if (client.wantChat) {
      return client.wantChat(chat);
    }
    client.selectChat(chat);
    return undefined;
  }, [client, chat]);
  return !!chat && inForce === chat;
}
