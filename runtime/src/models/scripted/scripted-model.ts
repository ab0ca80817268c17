import '../../agent/library-settings.js';
import { createHash } from 'node:crypto';
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import type { CallbackManagerForLLMRun } from '@langchain/core/callbacks/manager';
import {
  BaseChatModel,
  type BaseChatModelCallOptions,
  type BindToolsInput,
} from '@langchain/core/language_models/chat_models';
import { AIMessageChunk, type BaseMessage } from '@langchain/core/messages';
import { ChatGenerationChunk, type ChatResult } from '@langchain/core/outputs';

import { RunnerError } from '../../agent/runner-error.js';
import { nextTurnOf, type Turn } from './script.js';
import { type ScriptTools, scriptToolsOf } from './script-tools.js';

/** Characters of a tool call's arguments in one chunk. */
const argumentPiece = 160;
/** Without a pause between chunks, sockets and other runs get their turn of the loop after the first and then so many. */
const chunksPerTurn = 16;

/**
 * A chat model that is a script: it streams like a model and works through the real tools, but needs no
 * network and no key. What it does next follows from the messages alone, so that a run that was killed
 * goes on as if nothing had happened. It says in its output that it is a script.
 */
export class ScriptedModel extends BaseChatModel {
  readonly #chunkDelayMs: number;
  readonly #tools: ScriptTools | null;

  constructor({ chunkDelayMs, tools = null }: { chunkDelayMs: number; tools?: ScriptTools | null }) {
    super({});
    this.#chunkDelayMs = chunkDelayMs;
    this.#tools = tools;
  }

  override _llmType(): string {
    return 'scripted';
  }

  /** Large enough that no conversation is ever summarised by a model that cannot summarise. */
  override get profile() {
    return { maxInputTokens: 100_000_000, toolCalling: true };
  }

  override bindTools(tools: BindToolsInput[]): ScriptedModel {
    return new ScriptedModel({ chunkDelayMs: this.#chunkDelayMs, tools: scriptToolsOf(tools) });
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: BaseChatModelCallOptions,
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    const { signal } = options;
    const turn = nextTurnOf(messages, this.#tools);
    const delay = turn.chunkDelayMs ?? this.#chunkDelayMs;
    let sent = 0;
    for (const message of chunksOf(turn, messages)) {
      if (delay > 0) await pause(delay, undefined, { signal });
      else if (sent % chunksPerTurn === 1) await nextTurn(undefined, { signal });
      signal?.throwIfAborted();
      sent += 1;
      const chunk = new ChatGenerationChunk({ message, text: message.text });
      yield chunk;
      await runManager?.handleLLMNewToken(chunk.text, undefined, undefined, undefined, undefined, { chunk });
    }
    if (turn.ending === 'stall') await stalled(signal);
    if (turn.ending === 'fail-retryable' || turn.ending === 'fail-fatal') {
      const retryable = turn.ending === 'fail-retryable';
      throw new RunnerError('scripted_failure', 'The scripted model failed as its prompt asked.', {
        retryable,
      });
    }
  }

  override async _generate(
    messages: BaseMessage[],
    options: this['ParsedCallOptions'],
    runManager?: CallbackManagerForLLMRun,
  ): Promise<ChatResult> {
    let whole: ChatGenerationChunk | null = null;
    for await (const chunk of this._streamResponseChunks(messages, options, runManager)) {
      whole = whole === null ? chunk : whole.concat(chunk);
    }
    return { generations: whole === null ? [] : [whole] };
  }
}

function* chunksOf(turn: Turn, messages: readonly BaseMessage[]): Generator<AIMessageChunk> {
  for (const [word] of turn.text.matchAll(/\s*\S+\s*$|\s*\S+/g)) yield new AIMessageChunk({ content: word });
  for (const [at, call] of turn.calls.entries()) {
    // Text is block 0: a tool call with its number would be taken for a part of the text.
    const index = at + 1;
    const id = callIdOf(turn, messages, at);
    const args = JSON.stringify(call.args);
    yield toolChunk({ index, id, name: call.name, args: '' });
    for (let from = 0; from < args.length; from += argumentPiece) {
      yield toolChunk({ index, args: args.slice(from, from + argumentPiece) });
    }
  }
  if (turn.text === '' && turn.calls.length === 0) yield new AIMessageChunk({ content: '' });
}

function toolChunk(piece: { index: number; id?: string; name?: string; args: string }): AIMessageChunk {
  return new AIMessageChunk({ content: '', tool_call_chunks: [{ type: 'tool_call_chunk', ...piece }] });
}

/** The same conversation gives the same ids, and no two calls of one conversation share one. */
function callIdOf(turn: Turn, messages: readonly BaseMessage[], position: number): string {
  const hash = createHash('sha256').update(`${turn.key}\u0000${messages.length}\u0000${position}`);
  return `call_${hash.digest('hex').slice(0, 24)}`;
}

async function stalled(signal: AbortSignal | undefined): Promise<never> {
  // A day is for ever here: every run has a watchdog.
  for (;;) await pause(86_400_000, undefined, { signal, ref: false });
}
