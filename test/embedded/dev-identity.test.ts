import fs from 'node:fs';
import path from 'node:path';
import { importSPKI, jwtVerify } from 'jose';
import t from 'tap';
import { createDevIdentity } from '../../src/embedded/dev-identity.js';
import { readServerNote, removeServerNote, writeServerNote } from '../../src/embedded/server-note.js';

t.test('a development token is valid under the published key, before and after a restart', async (t) => {
  const dataDir = path.join(t.testdir(), 'data');
  const token = await createDevIdentity({ dataDir }).token('dev-user', 60);
  const later = createDevIdentity({ dataDir });
  const key = await importSPKI(later.publicKeyPem, 'ES256');
  const { payload } = await jwtVerify(token, key, { issuer: later.issuer, audience: later.audience });
  t.equal(payload.sub, 'dev-user');
  t.equal((payload.exp ?? 0) - (payload.iat ?? 0), 60);
});

t.test('the key and the note with the token can be read by their owner alone', async (t) => {
  const dataDir = t.testdir();
  createDevIdentity({ dataDir });
  writeServerNote(dataDir, { url: 'http://127.0.0.1:1', token: 'secret', pid: process.pid });
  for (const name of ['dev-key.pem', 'server.json']) {
    t.equal(fs.statSync(path.join(dataDir, name)).mode & 0o777, 0o600, name);
  }
  removeServerNote(dataDir, 1);
  t.equal(readServerNote(dataDir)?.token, 'secret', "another process's note stays");
  removeServerNote(dataDir, process.pid);
  t.equal(readServerNote(dataDir), undefined);
});
