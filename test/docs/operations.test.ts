import { test } from 'tap';
import { loadConfig } from '../../src/config.js';
import { configVariables } from '../../src/config-variables.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { codeOf, filesBelow, readText, rowsOf, sectionOf } from './documents.js';

const document = readText('docs/operations.md');

type RuntimeConfig = typeof import('../../runtime/src/config.js');
type RuntimeMetrics = typeof import('../../runtime/src/telemetry/metrics.js');
/** The runtime is a package of its own; its compiled files lie beside it. */
const runtimeFile = (name: string): string =>
  new URL(`../../../runtime/dist/src/${name}`, import.meta.url).href;
const { readConfig } = (await import(runtimeFile('config.js'))) as RuntimeConfig;
const runtimeMetrics = (await import(runtimeFile('telemetry/metrics.js'))) as RuntimeMetrics;

/** Name, default and unit of each row; the default is null where a dash stands. */
const variablesIn = (heading: string) =>
  rowsOf(sectionOf(document, heading)).map(([name = '', fallback = '', unit = '', meaning = '']) => {
    if (meaning === '') throw new Error(`${name} has no meaning`);
    return { name: codeOf(name), fallback: fallback === '–' ? null : codeOf(fallback), unit };
  });

/** Every name that a reader of the environment asks for. */
function namesReadBy(read: (env: Record<string, string | undefined>) => unknown): string[] {
  const names = new Set<string>();
  const env = new Proxy<Record<string, string | undefined>>(
    {},
    {
      get(_, name) {
        names.add(String(name));
        return undefined;
      },
    },
  );
  try {
    read(env);
  } catch {
    // What is missing is reported after everything has been read.
  }
  return [...names].sort();
}

test('every variable of the orchestrator is documented with its default and unit, and no other', async (t) => {
  const known = configVariables.map(({ name, fallback, unit }) => ({ name, fallback, unit }));
  t.strictSame(variablesIn('Variables of the orchestrator'), known);
  const names = new Set(known.map(({ name }) => name));
  for (const name of namesReadBy(loadConfig)) t.ok(names.has(name), `${name} is read and listed`);
});

test('every variable of the runtime is documented with its default, and no other', async (t) => {
  const described = variablesIn('Variables of the runtime');
  t.strictSame(described.map(({ name }) => name).sort(), namesReadBy(readConfig));
  const config = readConfig({ RUNTIME_DATABASE_URL: 'postgres://localhost/deepagents_runtime' });
  const defaults = new Map(Object.entries(config).map(([key, value]) => [key.toLowerCase(), value]));
  for (const { name, fallback } of described) {
    if (name === 'RUNTIME_DATABASE_URL' || name === 'OTEL_EXPORTER_OTLP_ENDPOINT') {
      t.equal(fallback, null, name);
      continue;
    }
    const key = name.replace(/^RUNTIME_/, '').replaceAll('_', '');
    t.equal(fallback, String(defaults.get(key.toLowerCase())), name);
  }
});

/** Metrics of a text in Prometheus' format, without those of the process. */
const metricsIn = (text: string, prefix: string): string[] =>
  [...text.matchAll(/^# TYPE (\w+) /gm)]
    .map(([, name = '']) => name)
    .filter((name) => name.startsWith(prefix) && !/^\w*?(process|nodejs)_/.test(name.slice(prefix.length)))
    .map((name) => name.slice(prefix.length))
    .sort();

test('every metric of both services is documented, and no other', async (t) => {
  const orchestrator = createMetrics({ processMetrics: false });
  const described = rowsOf(sectionOf(document, 'Metrics of the orchestrator'));
  t.strictSame(
    described.map(([name = '']) => codeOf(name).replace(/\{.*$/, '')).sort(),
    metricsIn(await orchestrator.render(), 'ide_orchestrator_'),
  );
  const runtime = runtimeMetrics.createMetrics({
    countRuns: async () => ({}),
    queueLength: () => 0,
    eventLogBytes: () => 0,
  });
  t.strictSame(
    rowsOf(sectionOf(document, 'Metrics of the runtime'))
      .map(([name = '']) => codeOf(name).replace(/\{.*$/, ''))
      .sort(),
    metricsIn(await runtime.render(), 'deepagents_runtime_'),
  );
});

test('every log line that an operator is told to look for is written somewhere', async (t) => {
  const sources = ['src', 'runtime/src'].flatMap((folder) => filesBelow(folder, '.ts')).map(readText);
  const quoted = [...sectionOf(document, 'When something fails').matchAll(/“([^”]+)”/g)];
  t.ok(quoted.length > 20, 'the section quotes the lines');
  for (const [, line = ''] of quoted)
    t.ok(
      sources.some((source) => source.includes(line)),
      line,
    );
});
