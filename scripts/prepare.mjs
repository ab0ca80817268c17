/**
 * Installs and builds what is missing or stale; does nothing, quickly, when nothing is.
 *
 * Plain JavaScript without dependencies: on a fresh clone there is neither TypeScript nor node_modules.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const at = (...parts) => path.join(root, ...parts);
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const projects = ['.', 'protocol', 'runtime'];
const sourceFolders = [
  'protocol/src',
  'protocol/test',
  'runtime/src',
  'runtime/test',
  'src',
  'test',
  'bench',
  'chaos',
  'scripts',
];
const settings = ['tsconfig.base.json', 'package-lock.json', ...projects.map((p) => `${p}/tsconfig.json`)];
const buildStamp = at('dist', '.built');

const readText = (file) => {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
};
const readJson = (file) => JSON.parse(readText(file) ?? 'null') ?? undefined;

/**
 * Says why packages must be installed, or undefined.
 *
 * npm notes what it installed in node_modules/.package-lock.json as its last step; comparing that with the lock
 * file needs no stamp of ours and is right after an `npm ci` by hand, an interrupted one, and one in production.
 * @public
 */
export const installReason = ({ dev = true } = {}) => {
  const wanted = readJson(at('package-lock.json'))?.packages;
  const present = readJson(at('node_modules', '.package-lock.json'))?.packages;
  if (wanted === undefined) throw new Error('package-lock.json is missing');
  if (present === undefined) return 'nothing is installed';
  for (const [name, entry] of Object.entries(wanted)) {
    if (!name.includes('node_modules/') || (!dev && (entry.dev || entry.devOptional))) continue;
    const found = present[name];
    // Other platforms' binaries are in the lock file and are rightly absent. `libc` is left to npm.
    if (found === undefined && entry.optional) {
      const matches = (list, own) => list === undefined || list.includes(own);
      const forUs = matches(entry.os, process.platform) && matches(entry.cpu, process.arch);
      if (!forUs || entry.libc !== undefined || entry.os === undefined) continue;
    }
    if (found === undefined) return `${name} is missing`;
    if (found.version !== entry.version || found.integrity !== entry.integrity)
      return `${name} is another version`;
  }
  return undefined;
};

const filesBelow = (folder, ending, found = []) => {
  let entries = [];
  try {
    entries = fs.readdirSync(at(folder), { withFileTypes: true });
  } catch {
    return found;
  }
  for (const entry of entries) {
    const name = `${folder}/${entry.name}`;
    if (entry.isDirectory()) filesBelow(name, ending, found);
    else if (name.endsWith(ending)) found.push(name);
  }
  return found;
};

/** Names, sizes and times of every source: a deleted file and a checked-out older one change it too. */
const sourcePrint = () => {
  const hash = createHash('sha256').update(process.version);
  for (const name of [...settings, ...sourceFolders.flatMap((folder) => filesBelow(folder, '.ts'))].sort()) {
    const stat = fs.statSync(at(name), { throwIfNoEntry: false });
    hash.update(`${name} ${stat?.size} ${stat?.mtimeMs}\n`);
  }
  return hash.digest('hex');
};

/** @public */
export const isBuilt = () => {
  const everyOutput = projects.every((project) => fs.existsSync(at(project, 'dist')));
  return everyOutput && readText(buildStamp) === sourcePrint();
};

/** A compiled file whose source is gone would go on being run, as a test for example. */
const removeOrphans = () => {
  for (const project of projects) {
    const output = path.posix.join(project, 'dist');
    for (const name of filesBelow(output, '.js')) {
      const source = path.posix.join(project, path.posix.relative(output, name)).replace(/\.js$/, '.ts');
      if (fs.existsSync(at(source))) continue;
      for (const ending of ['.js', '.js.map', '.d.ts', '.d.ts.map']) {
        fs.rmSync(at(name.replace(/\.js$/, ending)), { force: true });
      }
    }
  }
};

/** Runs a command; its output goes to stderr, so that stdout stays that of the program that follows. */
const run = (command, args) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 2, 2],
      shell: process.platform === 'win32',
    });
    const pass = (signal) => child.kill(signal);
    process.on('SIGINT', pass).on('SIGTERM', pass);
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      process.off('SIGINT', pass).off('SIGTERM', pass);
      if (code === 0) resolve();
      else reject(new Error(`${command} ${args.slice(0, 2).join(' ')} ended with ${signal ?? code}`));
    });
  });

const install = () => {
  // Under `npm start` this is the npm that the person called, which need not be the first one in PATH.
  const npm = process.env.npm_execpath;
  const args = ['ci', '--include=dev', '--no-audit', '--no-fund'];
  return npm?.endsWith('.js') ? run(process.execPath, [npm, ...args]) : run('npm', args);
};

const isAlive = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
};

/** Holds .data/prepare.lock while `work` runs; waits for another holder, and takes over a dead one's lock. */
const alone = async (work) => {
  const lock = at('.data', 'prepare.lock');
  const owner = path.join(lock, 'pid');
  fs.mkdirSync(at('.data'), { recursive: true });
  for (let told = false; ; await wait(200)) {
    try {
      fs.mkdirSync(lock);
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    const pid = Number(readText(owner) ?? 0);
    const age = Date.now() - (fs.statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    // Without a pid its owner is between two steps, or died there.
    if (pid > 0 ? !isAlive(pid) : age > 5_000) fs.rmSync(lock, { recursive: true, force: true });
    else if (!told) console.error('Waiting for another installation or build of this clone …');
    told = true;
  }
  fs.writeFileSync(owner, String(process.pid));
  try {
    return await work();
  } finally {
    fs.rmSync(lock, { recursive: true, force: true });
  }
};

/**
 * Makes the clone runnable: packages as in package-lock.json, then compiled output of the present sources.
 * Rejects when npm or the compiler fails; their own words are on stderr by then.
 */
export const prepare = async () => {
  // An image is built once and then stripped of compiler and sources; what it holds is what it runs.
  const isImage = process.env.NODE_ENV === 'production' && readText(buildStamp) !== undefined;
  if (isImage && installReason({ dev: false }) === undefined) return;
  if (installReason() === undefined && isBuilt()) return;
  await alone(async () => {
    const reason = installReason();
    if (reason !== undefined) {
      console.error(`Installing packages (${reason}) …`);
      await install();
    }
    const print = sourcePrint();
    if (isBuilt()) return;
    console.error('Building …');
    await run(process.execPath, [at('node_modules', 'typescript', 'bin', 'tsc'), '-b']);
    removeOrphans();
    fs.mkdirSync(path.dirname(buildStamp), { recursive: true });
    fs.writeFileSync(buildStamp, print);
  });
};

/** As `prepare`, but a failure ends the process with code 1 and one line. */
export const prepareOrExit = async () => {
  try {
    await prepare();
  } catch (error) {
    console.error(error.message);
    process.exit(1);
  }
};

if (process.argv[1] === fileURLToPath(import.meta.url)) await prepareOrExit();
