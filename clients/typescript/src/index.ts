export { connect, GatewayClient } from "./client.js";
export type {
  CloseDetail,
  ErrorDetail,
  EventDetail,
  GapDetail,
  GatewayEventMap,
  GatewayOptions,
  GatewayState,
  ReadyDetail,
} from "./types.js";
