// What the hooks use of React, so that the package is compiled without its types, which Debian lacks.
export interface Context<T> {
  readonly Provider: unknown;
  readonly of?: T;
}
export interface Element {
  type: any;
  props: any;
  key: string | null;
}
export function createContext<T>(value: T): Context<T>;
export function createElement(type: unknown, props: object | null, ...children: unknown[]): Element;
export function useContext<T>(context: Context<T>): T;
export function useEffect(effect: () => void | (() => void), given?: readonly unknown[]): void;
export function useRef<T>(value: T): { current: T };
export function useState<T>(value: T): [T, (value: T) => void];
export function useSyncExternalStore<T>(subscribe: (changed: () => void) => () => void, read: () => T, onServer?: () => T): T;
