/** Something that an agent can be given, with all that a specification says about it. */
export interface Capability {
  /** Name of the tool. */
  tool: string;
  label: string;
  /** Sentence in the agent's prompt. */
  rule: string;
  /** Principle in the constitution. */
  principle: string;
}

interface Entry extends Capability {
  pattern: RegExp;
}

const lexicon: readonly Entry[] = [
  entry(
    'web_search',
    'web search',
    /\b(web|internet|online|google)[- ]?(search\w*|research|look-?ups?|access)\b|\bsearch (the )?(web|internet)\b/i,
    'look facts up on the web and name your sources',
    'Facts taken from the web are given with their source, and never from a source that cannot be named.',
  ),
  entry(
    'send_email',
    'e-mail',
    /\be-?mails?\b|\bmail (sending|delivery)\b/i,
    'send an e-mail when the user has confirmed recipient and text',
    'No e-mail leaves without the confirmation of the user who asked for it.',
  ),
  entry(
    'query_database',
    'database access',
    /\b(databases?|sql|postgres\w*|mysql)\b/i,
    'read from the database with parameterised, read-only queries',
    'Databases are read, never written, and personal data stays in them.',
  ),
  entry(
    'calendar',
    'calendar',
    /\b(calendars?|scheduling|appointments?|meetings?)\b/i,
    'read and propose appointments in the calendar',
    'An appointment is proposed first and only entered when every person asked has agreed.',
  ),
  entry(
    'translate_text',
    'translation',
    /\b(translat\w+|multi-?lingual|languages? support)\b/i,
    'translate text and keep names, numbers and formatting as they are',
    'A translation keeps the meaning of the original, and says so where it cannot.',
  ),
  entry(
    'summarize_text',
    'summaries',
    /\b(summar\w+|digests?|abstracts?)\b/i,
    'summarise long text in at most five sentences',
    'A summary adds nothing that the original does not say.',
  ),
  entry(
    'run_code',
    'code execution',
    /\b(code execution|(run|execute|running|executing) (python |javascript )?code|code interpreter)\b/i,
    'run small programs in an isolated environment',
    'Code runs in isolation, without network and without secrets.',
  ),
  entry(
    'read_pdf',
    'document reading',
    /\b(pdfs?|document (reading|parsing|analysis))\b/i,
    'read documents and quote the page that a statement comes from',
    'Statements taken from a document name its page.',
  ),
  entry(
    'weather_forecast',
    'weather forecasts',
    /\bweather\b/i,
    'fetch the weather forecast of a place',
    'A forecast is always given with its time and its source.',
  ),
  entry(
    'send_notification',
    'notifications',
    /\b(notifications?|notify\w*|alerts?|slack|sms)\b/i,
    'notify people through the channel that they have chosen',
    'Nobody is notified more often than they have agreed to.',
  ),
  entry(
    'generate_image',
    'image generation',
    /\b(images?|pictures?|illustrations?)( generation| creation)?\b/i,
    'make an image from a description',
    'A generated image is marked as generated and never shows a real person.',
  ),
  entry(
    'speech',
    'speech',
    /\b(speech|voice|audio)( (recognition|input|output|synthesis))?\b/i,
    'turn speech into text and text into speech',
    'Recordings of voices are not kept longer than the conversation.',
  ),
  entry(
    'payments',
    'payments',
    /\b(payments?|billing|invoices?|checkout)\b/i,
    'prepare a payment for the user to confirm',
    'No payment is made without the confirmation of the person who pays.',
  ),
  entry(
    'file_storage',
    'file storage',
    /\b(file (storage|upload\w*|sharing)|uploads?|cloud storage)\b/i,
    'store and fetch files of the user',
    'A stored file is only shown to the user whom it belongs to.',
  ),
  entry(
    'sentiment_analysis',
    'sentiment analysis',
    /\b(sentiment|mood|tone) (analysis|detection)\b/i,
    'find out the mood of a text before answering it',
    'The mood of a person is used to answer better, and is never stored.',
  ),
  entry(
    'long_term_memory',
    'memory',
    /\b(memory|remember\w*|history of conversations)\b/i,
    'remember what the user wants to be remembered',
    'What is remembered can be seen and deleted by the person whom it is about.',
  ),
];

function entry(tool: string, label: string, pattern: RegExp, use: string, principle: string): Entry {
  return { tool, label, pattern, rule: `Use ${tool} to ${use}.`, principle };
}

/** The capability that a text names, or null. */
export function knownCapabilityOf(text: string): Capability | null {
  return lexicon.find(({ pattern }) => pattern.test(text)) ?? null;
}

/** A capability for anything that can be named. */
export function namedCapabilityOf(phrase: string): Capability {
  const tool = phrase
    .normalize('NFKD')
    .replace(/[\u0300-\u036f]/g, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '_')
    .replace(/^_+|_+$/g, '')
    .slice(0, 48);
  return {
    tool: tool === '' ? 'capability' : tool,
    label: phrase,
    rule: `Use ${tool} for ${phrase}.`,
    principle: `What is done for "${phrase}" stays within what the user asked for.`,
  };
}
