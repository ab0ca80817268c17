import { type Capability, knownCapabilityOf, namedCapabilityOf } from './capabilities.js';

type WishKind =
  | 'add-capability'
  | 'remove-capability'
  | 'add-agent'
  | 'remove-agent'
  | 'rename-agent'
  | 'create-workflow'
  | 'instruct';

/** What a prompt asks for, as far as a script can tell. */
export interface Wish {
  kind: WishKind;
  /** The request in the user's own words, on one line. */
  text: string;
  /** What the wish is about, without verb, articles and target. */
  subject: string;
  capability: Capability | null;
  /** The agent that the prompt names, as it names it. */
  target: string | null;
  newName: string | null;
  /** The file that the user was looking at. */
  contextPath: string | null;
  /** One line that says what was understood. */
  intent: string;
}

const politeness =
  /^(please|kindly|hi|hello|hey|can you|could you|would you|will you|i('d| would) like (you )?to|i want (you )?to|i need (you )?to|we (want|need) to|let'?s|make sure (that )?(you|we))[\s,:!.]*/i;

const verbs: readonly [RegExp, 'add' | 'remove' | 'rename' | 'create'][] = [
  [/^(add|include|introduce|enable|give|integrate|support|implement|provide|extend|equip)\b\s*/i, 'add'],
  [/^(remove|delete|drop|disable|take away|take out|get rid of|strip)\b\s*/i, 'remove'],
  [/^rename\b\s*/i, 'rename'],
  // "Make it polite" changes something, "make a polite bot" creates something.
  [/^(create|build|generate|set up|(make|write|design)(?= (me |us )?(an?|another|new)\b))\s*/i, 'create'],
];

/** Reads a prompt: the request first, then the context under its headings. */
export function wishOf(prompt: string): Wish {
  const { request, contextPath } = partsOf(prompt);
  const text = request.replace(/\s+/g, ' ').trim();
  const { verb, rest } = verbOf(text);
  const base = { text, contextPath, newName: null, capability: null };

  const renamed =
    verb === 'rename' ? /^(?:the )?(?:agent )?(.+?)(?: agent)? (?:to|into|as) (.+)$/i.exec(rest) : null;
  if (renamed?.[1] && renamed[2]) {
    const target = cleanName(renamed[1]);
    const newName = cleanName(renamed[2]);
    const intent = `rename the agent ${target} to ${newName}`;
    return { ...base, kind: 'rename-agent', subject: target, target, newName, intent };
  }

  const { phrase, target } = targetOf(rest);
  const subject = nounPhraseOf(phrase);
  const at = target === null ? '' : ` (${target})`;
  if (
    verb === 'create' &&
    /\b(workflows?|specifications?|systems?|assistants?|bots?|apps?|applications?|teams?)\b/i.test(subject)
  ) {
    return {
      ...base,
      kind: 'create-workflow',
      subject,
      target,
      intent: `create a workflow for "${subject}"`,
    };
  }
  const agent = agentNameIn(phrase);
  if (agent !== null && (verb === 'add' || verb === 'create')) {
    return { ...base, kind: 'add-agent', subject, target: agent, intent: `add the agent ${agent}` };
  }
  if (agent !== null && verb === 'remove') {
    return { ...base, kind: 'remove-agent', subject, target: agent, intent: `remove the agent ${agent}` };
  }
  if (subject !== '' && (verb === 'add' || verb === 'create' || verb === 'remove')) {
    const capability = knownCapabilityOf(phrase) ?? namedCapabilityOf(subject);
    const removing = verb === 'remove';
    const intent = `${removing ? 'remove' : 'add'} ${capability.label}${at}`;
    return {
      ...base,
      kind: removing ? 'remove-capability' : 'add-capability',
      subject,
      capability,
      target,
      intent,
    };
  }
  const quoted = text.length > 120 ? `${text.slice(0, 120)}…` : text;
  return {
    ...base,
    kind: 'instruct',
    subject: nounPhraseOf(text),
    target: target ?? namedAgentIn(text),
    intent: `note the wish "${quoted}"`,
  };
}

function partsOf(prompt: string): { request: string; contextPath: string | null } {
  const heading = /^#{1,6} .*\b(context|selection|file)\b.*$/im.exec(prompt);
  const request = heading === null ? prompt : prompt.slice(0, heading.index);
  const context = heading === null ? '' : prompt.slice(heading.index);
  const path = /(?:^|[\s`"'(])(\/[^\s`"')]+\.[a-z]+)/im.exec(context);
  return { request: request.trim() === '' ? prompt : request, contextPath: path?.[1] ?? null };
}

function verbOf(text: string): { verb: 'add' | 'remove' | 'rename' | 'create' | null; rest: string } {
  let rest = text.replace(/[.!?\s]+$/, '');
  for (let shorter = rest.replace(politeness, ''); shorter !== rest; shorter = rest.replace(politeness, ''))
    rest = shorter;
  for (const [pattern, verb] of verbs) {
    if (pattern.test(rest)) return { verb, rest: rest.replace(pattern, '') };
  }
  return { verb: null, rest };
}

/** "… to the GreetingAgent", "… for the agent": the name, or null for an agent that is not named. */
function targetOf(rest: string): { phrase: string; target: string | null } {
  const named =
    /^(.*)\s+(?:to|for|from|in|into|of|on|with)\s+(?:the |our |my |an? )?((?:[\w-]+\s){0,3}?[\w-]*agents?|workflow|definition|specification)$/i.exec(
      rest,
    );
  if (named?.[1] !== undefined && named[2] !== undefined) {
    const name = cleanName(named[2]);
    return {
      phrase: named[1],
      target: /^(agents?|workflow|definition|specification)$/i.test(name) ? null : name,
    };
  }
  // "give the GreetingAgent web search", "the ability to …"
  const given = /^(?:the |our |my )?([A-Z]\w*Agent|(?:[\w-]+ )?agent)\s+(.+)$/.exec(rest);
  if (given?.[1] && given[2] && !/^(called|named|that|which|who|for|to)\b/i.test(given[2])) {
    const name = cleanName(given[1]);
    return { phrase: given[2], target: /^(the )?agent$/i.test(name) ? null : name };
  }
  return { phrase: rest, target: null };
}

/** What is left of a phrase when everything is taken away that many phrases begin or end with. */
function nounPhraseOf(phrase: string): string {
  const before =
    /^(an?|the|some|any|new|more|our|my|support (for|of)|the ability (to|of)|ability (to|of)|(the )?capabilit(y|ies) (to|of|for)|access to|a way (to|of)|functionality (to|for)|with|for)\s+/i;
  const after =
    /\s+(capabilit(y|ies)|feature|features|support|functionality|tool|tools|ability|integration|please)$/i;
  let noun = phrase.replace(/["'`“”]/g, '').trim();
  for (;;) {
    const shorter = noun.replace(before, '').replace(after, '');
    if (shorter === noun) break;
    noun = shorter;
  }
  // A clause is no part of a name.
  noun = noun
    .replace(/\s+(so that|because|which|that|when|where|if|using|and also)\b.*$/i, '')
    .replace(/[,;:.].*$/, '');
  return noun.split(' ').slice(0, 6).join(' ');
}

/** "a research agent", "an agent called Scout", "an agent that checks facts" */
function agentNameIn(phrase: string): string | null {
  const called =
    /\bagents? (?:called|named) ["'`]?([\w -]+?)["'`]?(?: (?:that|which|who|for|to)\b.*)?$/i.exec(phrase);
  if (called?.[1]) return cleanName(called[1]);
  const doing = /^(?:an?|the|another|new|one|\s)*agent (?:that|which|who|for|to) (?:can |will )?(.+)$/i.exec(
    phrase,
  );
  if (doing?.[1]) return cleanName(`${nounPhraseOf(doing[1]).split(' ').slice(0, 3).join(' ')} agent`);
  const typed =
    /^(?:an?|the|another|new|\s)*((?:[\w-]+ ){1,3}agent|[A-Z]\w*Agent)(?: (?:that|which|who|for|to)\b.*)?$/i.exec(
      phrase,
    );
  return typed?.[1] ? cleanName(typed[1]) : null;
}

function namedAgentIn(text: string): string | null {
  const camel = /\b([A-Z]\w*Agent)\b/.exec(text);
  if (camel?.[1]) return camel[1];
  const spaced = /\b(?:the|our|my) ((?:[\w-]+ ){1,2}agent)\b/i.exec(text);
  return spaced?.[1] ? cleanName(spaced[1]) : null;
}

function cleanName(name: string): string {
  return name
    .replace(/["'`“”.]/g, '')
    .replace(/^(the|a|an|our|my|new|another)\s+/i, '')
    .trim();
}

/** "fact checking agent" → "FactCheckingAgent": names of agents are names of files too. */
export function agentNameOf(name: string): string {
  return name
    .normalize('NFKD')
    .replace(/[\u0300-\u036f]/g, '')
    .split(/[^A-Za-z0-9]+/)
    .filter((word) => word !== '')
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .join('')
    .slice(0, 60);
}
