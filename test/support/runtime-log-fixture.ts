import { createRuntimeLog } from '../../src/streams/runtime-log.js';
import { createRuntimeFrames } from '../../src/streams/runtime-socket.js';
import { createRuntimeClientFixture, jobOf } from './runtime-client-fixture.js';
import type { RuntimeScript } from './scripted-runtime.js';
import type { ScriptedThread } from './scripted-thread.js';

/** A scripted runtime and the reader of its logs, on real sockets. */
export async function createRuntimeLogFixture(
  teardown: (end: () => Promise<void>) => void,
  script: RuntimeScript = {},
) {
  const { runtime, client } = await createRuntimeClientFixture(teardown, script);
  const runtimeFrames = createRuntimeFrames({
    open: ({ threadId, position }) =>
      client.streamWebSocket({ threadId, after: position?.after ?? null, epoch: position?.epoch ?? null }),
    pingIntervalMs: 60_000,
    frameBytes: 1024 * 1024,
  });
  /** A run whose log holds that many tokens of so many characters. */
  const run = async (id: string, tokens: number, characters = 4): Promise<ScriptedThread> => {
    await client.invoke(jobOf(id));
    const thread = runtime.threads.get(id);
    if (thread === undefined) throw new Error('the run was not started');
    for (let count = 0; count < tokens; count++) {
      thread.push('on_llm_stream', { content: `é${count}`.padEnd(characters, 'x') });
    }
    return thread;
  };
  const hasty = (timeoutMs: number) => createRuntimeLog({ runtimeFrames, timeoutMs });
  return { runtime, runtimeLog: hasty(30_000), hasty, run };
}
