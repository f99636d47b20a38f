/** What the timers of a session are for; there is one of each. */
export const CONNECT = 0;
export const RETRY = 1;
export const IDLE = 2;
export const ANSWER = 3;
export const STABLE = 4;
export const HOLD = 5;
export const OTHER = 6;
export const RENEW = 7;

/** A timer that runs so much after its time, in milliseconds, was asleep with its page or machine, or in a tab that nobody sees. */
const ASLEEP = 5000;

/** Starts a timer in place of the one before; the action learns whether it slept. */
export type After = (name: number, delay: number, action: (slept: boolean) => unknown) => void;

/** Timers by name: one that starts them, one that stops one, one that stops all. */
export const timers = (): [After, (name: number) => void, () => void] => {
  const running: ReturnType<typeof setTimeout>[] = [];
  const stop = (name: number): void => clearTimeout(running[name]);
  return [
    (name, delay, action) => {
      stop(name);
      const due = Date.now() + delay;
      running[name] = setTimeout(() => action(Date.now() - due > ASLEEP), delay);
    },
    stop,
    () => running.forEach((id) => clearTimeout(id)),
  ];
};
