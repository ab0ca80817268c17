import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { benchDir } from './house.js';

const version = 'v1.8.1';
const repository = 'go.k6.io/k6';
const binary = path.join(benchDir, 'bin', 'k6');
const root = fileURLToPath(new URL('../../../', import.meta.url));

const works = (command: string): boolean => spawnSync(command, ['version'], { stdio: 'ignore' }).status === 0;

/**
 * k6 from PATH, from Go's folder, or from an earlier run; else built into `.bench/bin` where Go is there.
 * @throws Error that says what to install
 */
export function findK6(): string {
  const goFolder = path.join(process.env.GOPATH || path.join(os.homedir(), 'go'), 'bin', 'k6');
  const found = ['k6', goFolder, binary].find(works);
  if (found !== undefined) return found;
  if (!works('go')) {
    throw new Error(
      `k6 is needed: install it (https://grafana.com/docs/k6/latest/set-up/install-k6/) so that "k6" is in PATH, ` +
        `or install Go, and it is built here (${repository}@${version}).`,
    );
  }
  process.stderr.write(`Building ${repository}@${version}, which takes a few minutes …\n`);
  const env = { ...process.env, GOBIN: path.dirname(binary) };
  const built = spawnSync('go', ['install', `${repository}@${version}`], { env, stdio: ['ignore', 2, 2] });
  if (built.status !== 0 || !works(binary)) throw new Error('k6 could not be built; put "k6" into PATH.');
  return binary;
}

/** Runs `bench/<script>.ts`; k6 reads TypeScript itself. Resolves with its exit code, 99 where a threshold failed. */
export async function runK6(
  command: string,
  script: string,
  env: Readonly<Record<string, string>>,
): Promise<number> {
  const child = spawn(command, ['run', '--quiet', path.join(root, 'bench', `${script}.ts`)], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: {
      PATH: process.env.PATH ?? '',
      HOME: os.homedir(),
      K6_NO_USAGE_REPORT: 'true',
      K6_AUTO_EXTENSION_RESOLUTION: 'false',
      ...env,
    },
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}
