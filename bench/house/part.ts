import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { PartNews } from './messages.js';

type NewsOf<Type extends PartNews['type']> = Extract<PartNews, { type: Type }>;

/** One process of the bench, as the bench sees it. */
export interface Part<Order> {
  pid: number;
  tell(order: Order): void;
  /** The next news of that type. @throws Error where the part fails, ends, or says nothing for `withinMs` */
  next<Type extends PartNews['type']>(type: Type, withinMs?: number): Promise<NewsOf<Type>>;
  /** Hears every news of that type. */
  on<Type extends PartNews['type']>(type: Type, take: (news: NewsOf<Type>) => void): () => void;
  stop(): Promise<void>;
}

const DEFAULT_WAIT_MS = 30_000;

/** Starts `bench/<name>.ts` as a process that ends with this one. */
export function startPart<Order extends object>(
  name: string,
  options: { args?: readonly string[]; nodeFlags?: string[] } = {},
): Part<Order> {
  const script = fileURLToPath(new URL(`../${name}.js`, import.meta.url));
  const child = fork(script, options.args ?? [], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    execArgv: options.nodeFlags ?? [],
  });
  child.on('error', () => undefined);
  return partOf<Order>(name, child);
}

function partOf<Order extends object>(name: string, child: ChildProcess): Part<Order> {
  if (child.pid === undefined) throw new Error(`${name} could not be started`);
  const on: Part<Order>['on'] = (type, take) => {
    const hear = (news: unknown) => {
      if ((news as PartNews).type === type) take(news as NewsOf<typeof type>);
    };
    child.on('message', hear);
    return () => child.off('message', hear);
  };
  return {
    pid: child.pid,
    tell: (order) => void child.send(order),
    on,
    next(type, withinMs = DEFAULT_WAIT_MS) {
      return new Promise((resolve, reject) => {
        const offs: (() => void)[] = [];
        const settle = (done: () => void) => {
          clearTimeout(timer);
          for (const off of offs) off();
          done();
        };
        const fail = (reason: string) => settle(() => reject(new Error(`${name}: ${reason}`)));
        const timer = setTimeout(() => fail(`no "${type}" within ${withinMs} ms`), withinMs);
        const ended = (code: number | null) => fail(`ended with ${code}`);
        child.once('exit', ended);
        offs.push(() => child.off('exit', ended));
        offs.push(on(type, (news) => settle(() => resolve(news))));
        offs.push(on('failed', ({ reason }) => fail(reason)));
      });
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 5_000);
      await exited;
      clearTimeout(timer);
    },
  };
}
