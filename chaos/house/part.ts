import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import process from 'node:process';
import { setTimeout as wait } from 'node:timers/promises';
import type { Troubles } from '../troubles.js';
import { signal } from './processes.js';

/** What can be killed, frozen and comes back. */
export interface Part {
  readonly name: string;
  /** Of the process that runs now. */
  pid(): number | null;
  /** Resolves as soon as it serves. */
  untilReady(): Promise<void>;
  isReady(): boolean;
  /** Ends it at once, with SIGKILL or by asking with SIGTERM; it is started again. */
  end(how: 'SIGKILL' | 'SIGTERM'): void;
  freeze(): void;
  thaw(): void;
  /** Ends it for good. */
  stop(): Promise<void>;
}

export interface PartOptions {
  name: string;
  entry: string;
  env: Readonly<Record<string, string>>;
  cwd: string;
  logFile: string;
  /** Asked again and again until it says yes. */
  serves: () => Promise<boolean>;
  troubles: Troubles;
  onSpawn?: (pid: number) => void;
  onGone?: () => void;
  /** It ended though nobody had killed it, or ended badly when it was asked to. */
  onSurprise: (what: string) => void;
}

const restartMs = 150;
/** A start that failed, PostgreSQL being away for example, is tried again after this. */
const failedStartMs = 500;
const stopMs = 35_000;

/** Answers with 200. */
export async function answersOk(url: string): Promise<boolean> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    await answer.body?.cancel();
    return answer.status === 200;
  } catch {
    return false;
  }
}

/** Runs a script of Node in a process group of its own, and starts it again whenever it ends. */
export function startPart(options: PartOptions): Part {
  const { name } = options;
  const log = fs.openSync(options.logFile, 'a', 0o600);
  let child: ChildProcess | null = null;
  let ready = false;
  let asked: 'SIGKILL' | 'SIGTERM' | null = null;
  let stopped = false;
  let wake = () => {};
  let recovered = options.troubles.begin(name);

  async function watchReadiness(of: ChildProcess): Promise<void> {
    while (child === of && !stopped) {
      if (await options.serves()) {
        ready = child === of;
        if (ready) recovered();
        return;
      }
      await wait(50);
    }
  }

  async function runOnce(): Promise<number> {
    asked = null;
    const started = spawn(process.execPath, ['--enable-source-maps', options.entry], {
      cwd: options.cwd,
      env: { ...options.env },
      detached: true,
      stdio: ['ignore', log, log],
    });
    const exited = once(started, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
    if (started.pid === undefined) throw new Error(`${name} could not be spawned`);
    child = started;
    options.onSpawn?.(started.pid);
    void watchReadiness(started);
    const [code, by] = await exited;
    const wasReady = ready;
    child = null;
    ready = false;
    recovered();
    recovered = options.troubles.begin(name);
    options.onGone?.();
    if (stopped) return 0;
    if (asked === null && wasReady) options.onSurprise(`${name} ended by itself with ${by ?? code}`);
    if (asked === 'SIGTERM' && wasReady && code !== 0)
      options.onSurprise(`${name} was asked to stop and ended with ${by ?? code}`);
    return asked === null ? failedStartMs : restartMs;
  }

  const running = (async () => {
    while (!stopped) {
      const delayMs = await runOnce();
      await Promise.race([wait(delayMs), new Promise<void>((resolve) => (wake = resolve))]);
    }
  })();

  const send = (signalName: NodeJS.Signals) => {
    if (child?.pid !== undefined) signal(child.pid, signalName);
  };
  return {
    name,
    pid: () => child?.pid ?? null,
    isReady: () => ready,
    async untilReady() {
      while (!ready && !stopped) await wait(20);
    },
    end(how) {
      if (child === null) return;
      // A kill while it stops in order is a kill; the other way round nothing is heard any more.
      if (asked !== 'SIGKILL') asked = how;
      send(how);
    },
    freeze: () => send('SIGSTOP'),
    thaw: () => send('SIGCONT'),
    async stop() {
      stopped = true;
      wake();
      send('SIGCONT');
      send('SIGTERM');
      const force = setTimeout(() => send('SIGKILL'), stopMs);
      await running;
      clearTimeout(force);
      fs.closeSync(log);
    },
  };
}
