import '../agent/library-settings.js';
import type { BaseChatModel } from '@langchain/core/language_models/chat_models';
import { initChatModel } from 'langchain';

import { RunnerError } from '../agent/runner-error.js';
import type { ModelSetting } from './model-setting.js';
import { ScriptedModel } from './scripted/scripted-model.js';

/** The package that brings each provider; only some are installed. */
const providerPackages: Readonly<Record<string, string>> = {
  anthropic: '@langchain/anthropic',
  azure_openai: '@langchain/openai',
  bedrock: '@langchain/aws',
  cohere: '@langchain/cohere',
  deepseek: '@langchain/deepseek',
  'google-genai': '@langchain/google-genai',
  groq: '@langchain/groq',
  mistralai: '@langchain/mistralai',
  ollama: '@langchain/ollama',
  openai: '@langchain/openai',
  xai: '@langchain/xai',
};

/** A model by the name that a definition gives it. */
export interface NamedModel {
  provider: string;
  model: string;
}

/** Builds the model of one agent: the one that its definition names, else the configured one. */
export type ModelSource = (wanted: NamedModel | null) => Promise<BaseChatModel>;

/**
 * Checks the configured model, and those that agents ask for, without calling anything.
 *
 * @throws RunnerError `invalid_model` for an unknown provider or one whose package is not installed
 */
export function checkModel(
  setting: ModelSetting,
  agents: readonly { model: NamedModel | null }[] = [],
): void {
  // The script plays every agent, whatever model its definition names.
  if (setting.kind === 'scripted') return;
  checkProvider(setting.provider);
  for (const { model } of agents) if (model !== null) checkProvider(model.provider);
}

/** Models are built once for each name: they hold no state of a run. */
export function createModelSource(setting: ModelSetting): ModelSource {
  if (setting.kind === 'scripted') {
    const script = new ScriptedModel({ chunkDelayMs: setting.chunkDelayMs });
    return async () => script;
  }
  const built = new Map<string, Promise<BaseChatModel>>();
  return (wanted) => {
    const { provider, model } = wanted ?? setting;
    const key = `${provider}:${model}`;
    let building = built.get(key);
    if (building === undefined) {
      building = build(provider, model, setting.maxRetries);
      // A missing key may be there at the next try; a failure is not kept.
      building.catch(() => built.delete(key));
      built.set(key, building);
    }
    return building;
  };
}

/**
 * Always an object: a bare "openai:…" given to the agents would call the Responses API, which compatible
 * servers do not have. `streaming` stays unset: setting it makes the client fetch tokenizer tables.
 */
async function build(provider: string, model: string, maxRetries: number): Promise<BaseChatModel> {
  checkProvider(provider);
  // Without a provider of its own the configurable wrapper is only resolved at the first call.
  return (await initChatModel(model, { modelProvider: provider, maxRetries })) as unknown as BaseChatModel;
}

function checkProvider(provider: string): void {
  const name = Object.hasOwn(providerPackages, provider) ? providerPackages[provider] : undefined;
  if (name === undefined) {
    const known = Object.keys(providerPackages).join(', ');
    throw new RunnerError(
      'invalid_model',
      `The model provider "${provider}" is not known. Known are: ${known}.`,
    );
  }
  try {
    import.meta.resolve(name);
  } catch (cause) {
    throw new RunnerError(
      'invalid_model',
      `The model provider "${provider}" needs the package ${name}, which is not installed.`,
      { cause },
    );
  }
}
