import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { AlreadyRunningError, takeDataLock } from '../../src/embedded/data-lock.js';
import { endProcess, processIdentityOf } from '../../src/embedded/process-identity.js';

const url = 'http://127.0.0.1:8080';

t.test('a folder that a living process holds is refused with its address', async (t) => {
  const dataDir = t.testdir();
  const lock = await takeDataLock({ dataDir, url });
  await t.rejects(takeDataLock({ dataDir, url: 'http://127.0.0.1:1' }), {
    name: 'AlreadyRunningError',
    pid: process.pid,
    message: /running already: http:\/\/127\.0\.0\.1:8080/,
  });
  lock.setUrl('http://127.0.0.1:9000');
  await t.rejects(takeDataLock({ dataDir, url }), { message: /127\.0\.0\.1:9000/ });
  lock.release();
  const again = await takeDataLock({ dataDir, url });
  again.release();
  t.strictSame(fs.readdirSync(dataDir), [], 'nothing is left in the folder');
});

t.test('a dead holder is replaced, also when another process has its number by now', async (t) => {
  const dataDir = t.testdir();
  fs.writeFileSync(
    path.join(dataDir, 'lock.json'),
    JSON.stringify({ pid: process.ppid, started: 'another time', url }),
  );
  const lock = await takeDataLock({ dataDir, url });
  t.equal(JSON.parse(fs.readFileSync(path.join(dataDir, 'lock.json'), 'utf8')).pid, process.pid);
  lock.release();
});

t.test('of several that start at once exactly one gets the folder of a dead one', async (t) => {
  const dataDir = t.testdir();
  fs.writeFileSync(path.join(dataDir, 'lock.json'), JSON.stringify({ pid: 1, started: 'long ago', url }));
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => takeDataLock({ dataDir, url })));
  t.equal(outcomes.filter((outcome) => outcome.status === 'fulfilled').length, 1);
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') t.type(outcome.reason, AlreadyRunningError);
  }
});

t.test('a process that ignores the polite signal is ended by the next one, with its group', async (t) => {
  const child = spawn('/bin/sh', ['-c', 'trap "" TERM; echo ready; while :; do sleep 0.05; done'], {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const identity = processIdentityOf(child.pid ?? 0);
  if (identity === undefined) throw new Error('the child is gone');
  t.equal(await endProcess(identity, [['SIGTERM', 100]], { group: true }), false);
  t.equal(await endProcess(identity, [['SIGKILL', 60_000]], { group: true }), true);
  t.equal(await endProcess(identity, [['SIGKILL', 60_000]]), true, 'ending a dead one is no error');
});
