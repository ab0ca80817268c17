import fs from 'node:fs';
import path from 'node:path';

type Metric = 'lines' | 'branches';
type Counts = Record<Metric, { total: number; covered: number }>;
type Summary = Record<string, Counts>;

export interface FolderCoverage {
  folder: string;
  lines: number;
  branches: number;
  /** Files that no test has loaded; their lines count as not covered. */
  unloaded: string[];
  passed: boolean;
}

const sourceFilesBelow = (folder: string): string[] =>
  fs
    .readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => path.join(folder, name));

/** Whether the compiled file does anything; one of types alone is never loaded, and that is right. */
const hasCode = (compiled: string): boolean => {
  if (!fs.existsSync(compiled)) return true;
  const text = fs.readFileSync(compiled, 'utf8').replace(/\/\*[\s\S]*?\*\//g, '');
  return text.replace(/^\s*(\/\/.*|export \{\};?)$/gm, '').trim() !== '';
};

const compiledOf = (root: string, source: string): string => {
  const name = path.relative(root, source).replace(/\.ts$/, '.js');
  const workspace = /^(runtime|protocol)[\\/](.*)$/.exec(name);
  return workspace
    ? path.join(root, workspace[1] ?? '', 'dist', workspace[2] ?? '')
    : path.join(root, 'dist', name);
};

const percent = (covered: number, total: number): number => (total === 0 ? 100 : (100 * covered) / total);

/**
 * Coverage of each folder from tap's json-summary report, which knows only files that were loaded; the folder's
 * other files are added as not covered. Folders that do not exist are left out.
 */
export const coverageOf = (deps: {
  root: string;
  summary: Summary;
  folders: readonly string[];
  atLeast: number;
}): FolderCoverage[] =>
  deps.folders
    .filter((folder) => fs.existsSync(path.join(deps.root, folder)))
    .map((folder) => {
      const sum: Counts = { lines: { total: 0, covered: 0 }, branches: { total: 0, covered: 0 } };
      const unloaded: string[] = [];
      for (const file of sourceFilesBelow(path.join(deps.root, folder))) {
        const counts = deps.summary[file];
        if (counts !== undefined) {
          for (const metric of ['lines', 'branches'] as const) {
            sum[metric].total += counts[metric].total;
            sum[metric].covered += counts[metric].covered;
          }
        } else if (hasCode(compiledOf(deps.root, file))) {
          unloaded.push(path.relative(deps.root, file));
          sum.lines.total += fs.readFileSync(file, 'utf8').split('\n').length;
          // At least the one branch of every file that is not loaded.
          sum.branches.total += 1;
        }
      }
      const lines = percent(sum.lines.covered, sum.lines.total);
      const branches = percent(sum.branches.covered, sum.branches.total);
      return { folder, lines, branches, unloaded, passed: lines >= deps.atLeast && branches >= deps.atLeast };
    });

export const readSummary = (file: string): Summary => JSON.parse(fs.readFileSync(file, 'utf8')) as Summary;
