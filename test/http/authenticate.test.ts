import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, SignJWT } from 'jose';
import t from 'tap';
import { createAuthenticator } from '../../src/http/authenticate.js';
import { createApi } from '../support/api.js';

const none = { publicKeyPem: null, jwksUrl: null, secret: null, issuer: null, audience: null };
const pemOf = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }).toString();
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const seconds = () => Math.floor(Date.now() / 1000);

const sign = (
  key: KeyObject | Uint8Array,
  alg: string,
  claims: { sub?: string; exp?: number | null; iss?: string; aud?: string; nbf?: number; kid?: string } = {},
) => {
  const token = new SignJWT({
    ...(claims.iss === undefined ? {} : { iss: claims.iss }),
    ...(claims.aud === undefined ? {} : { aud: claims.aud }),
    ...(claims.nbf === undefined ? {} : { nbf: claims.nbf }),
  }).setProtectedHeader({ alg, ...(claims.kid === undefined ? {} : { kid: claims.kid }) });
  token.setSubject(claims.sub ?? 'ada');
  if (claims.exp !== null) token.setExpirationTime(claims.exp ?? seconds() + 600);
  return token.sign(key);
};
const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');

t.test('a public key admits tokens of its own algorithm', async (t) => {
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ec384 = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  const ed = generateKeyPairSync('ed25519');
  for (const [pair, alg] of [
    [rsa, 'RS256'],
    [ec, 'ES256'],
    [ec384, 'ES384'],
    [ed, 'EdDSA'],
  ] as const) {
    const authenticator = createAuthenticator({
      auth: { ...none, publicKeyPem: pemOf(pair.publicKey) },
      now: Date.now,
    });
    const exp = seconds() + 600;
    const token = await sign(pair.privateKey, alg, { exp });
    const identity = await authenticator.verify(token);
    t.equal(identity.userId, 'ada', alg);
    t.equal(identity.expiresAt, exp * 1_000);
    t.match(await authenticator.verify(token), { userId: 'ada' }, 'from the cache');
    t.match(await authenticator.verifyHeader(`bearer ${token}`), { userId: 'ada' });
  }
});

t.test('no other algorithm is taken: none, the public key as a secret, or a neighbour', async (t) => {
  const publicKeyPem = pemOf(rsa.publicKey);
  const authenticator = createAuthenticator({ auth: { ...none, publicKeyPem }, now: Date.now });
  const claims = encode({ sub: 'eve', exp: seconds() + 600 });
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const good = await sign(rsa.privateKey, 'RS256');
  const [head, body, signature] = good.split('.');
  for (const [name, token] of [
    ['none', `${encode({ alg: 'none' })}.${claims}.`],
    ['None', `${encode({ alg: 'None' })}.${claims}.x`],
    ['HS256 with the PEM', await sign(new TextEncoder().encode(publicKeyPem), 'HS256')],
    [
      'HS256 with the DER',
      await sign(new Uint8Array(rsa.publicKey.export({ type: 'spki', format: 'der' })), 'HS256'),
    ],
    ['PS256', await sign(rsa.privateKey, 'PS256')],
    ['RS512', await sign(rsa.privateKey, 'RS512')],
    ['another key', await sign(other.privateKey, 'RS256')],
    ['other claims', `${head}.${claims}.${signature}`],
    ['no signature', `${head}.${body}.`],
    ['nothing', ''],
    ['two parts', `${head}.${body}`],
    ['too long', 'x'.repeat(20_000)],
  ] as const) {
    await t.rejects(authenticator.verify(token), { code: 'unauthenticated' }, name);
  }
});

t.test('a token must say until when and for whom it holds', async (t) => {
  const authenticator = createAuthenticator({
    auth: { ...none, publicKeyPem: pemOf(rsa.publicKey), issuer: 'https://issuer', audience: 'ide' },
    now: Date.now,
  });
  const good = { iss: 'https://issuer', aud: 'ide' };
  t.match(await authenticator.verify(await sign(rsa.privateKey, 'RS256', good)), { userId: 'ada' });
  for (const claims of [
    { ...good, exp: null },
    { ...good, exp: seconds() - 60 },
    { ...good, nbf: seconds() + 600 },
    { ...good, sub: '' },
    { ...good, sub: 'x'.repeat(256) },
    { ...good, sub: 'a\u0000b' },
    { ...good, iss: 'https://other' },
    { ...good, aud: 'other' },
    { iss: 'https://issuer' },
    { aud: 'ide' },
  ]) {
    await t.rejects(
      authenticator.verify(await sign(rsa.privateKey, 'RS256', claims)),
      { code: 'unauthenticated' },
      JSON.stringify(claims),
    );
  }
});

t.test('an expiry with a fraction, or beyond every calendar, is still a moment', async (t) => {
  const authenticator = createAuthenticator({
    auth: { ...none, publicKeyPem: pemOf(rsa.publicKey) },
    now: Date.now,
  });
  for (const exp of [seconds() + 60.123_456_7, 1e15, 1e300]) {
    const { expiresAt } = await authenticator.verify(await sign(rsa.privateKey, 'RS256', { exp }));
    t.ok(Number.isInteger(expiresAt), `${exp}`);
    t.doesNotThrow(() => new Date(expiresAt).toISOString(), `${exp}`);
  }
});

t.test('a verified token is good until it expires, not longer', async (t) => {
  let now = Date.now();
  const authenticator = createAuthenticator({
    auth: { ...none, publicKeyPem: pemOf(rsa.publicKey) },
    now: () => now,
  });
  const token = await sign(rsa.privateKey, 'RS256', { exp: Math.floor(now / 1_000) + 60 });
  await authenticator.verify(token);
  now += 30_000;
  await authenticator.verify(token);
  now += 40_000;
  await t.rejects(authenticator.verify(token), {
    code: 'unauthenticated',
    message: 'The token has expired.',
  });
});

t.test('keys that are of no use are refused at start', async (t) => {
  const start = (auth: object) => () => createAuthenticator({ auth: { ...none, ...auth }, now: Date.now });
  t.throws(start({ secret: 'short' }), /32 bytes/);
  t.throws(start({}), /32 bytes/);
  t.throws(
    start({ publicKeyPem: rsa.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }),
    /private/,
  );
  t.throws(
    start({ publicKeyPem: pemOf(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey) }),
    /2048/,
  );
  t.throws(start({ publicKeyPem: pemOf(generateKeyPairSync('x25519').publicKey) }), /not supported/);
  t.throws(
    start({ publicKeyPem: pemOf(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey) }),
    /not supported/,
  );
});

t.test('a key set is fetched by its address; where it is away that is no fault of the token', async (t) => {
  let answer: { status: number; body: string } = { status: 200, body: '' };
  const set = createServer((_request, response) => {
    response
      .writeHead(answer.status, { 'content-type': 'application/json', connection: 'close' })
      .end(answer.body);
  });
  await new Promise<void>((resolve) => set.listen(0, '127.0.0.1', resolve));
  t.teardown(() => new Promise((resolve) => set.close(resolve)));
  const jwksUrl = `http://127.0.0.1:${(set.address() as AddressInfo).port}/keys`;
  const authenticator = () => createAuthenticator({ auth: { ...none, jwksUrl }, now: Date.now });
  answer.body = JSON.stringify({ keys: [{ ...(await exportJWK(rsa.publicKey)), kid: 'one', alg: 'RS256' }] });
  t.match(await authenticator().verify(await sign(rsa.privateKey, 'RS256', { kid: 'one' })), {
    userId: 'ada',
  });
  await t.rejects(authenticator().verify(await sign(rsa.privateKey, 'RS256', { kid: 'two' })), {
    code: 'unauthenticated',
  });
  await t.rejects(authenticator().verify(await sign(randomBytes(32), 'HS256', { kid: 'one' })), {
    code: 'unauthenticated',
  });
  answer = { status: 500, body: '' };
  await t.rejects(authenticator().verify(await sign(rsa.privateKey, 'RS256', { kid: 'one' })), {
    code: 'overloaded',
  });
  answer = { status: 200, body: '{"keys":7}' };
  await t.rejects(authenticator().verify(await sign(rsa.privateKey, 'RS256', { kid: 'one' })), {
    code: 'overloaded',
  });
  const away = createAuthenticator({ auth: { ...none, jwksUrl: 'http://127.0.0.1:1/keys' }, now: Date.now });
  await t.rejects(away.verify(await sign(rsa.privateKey, 'RS256', { kid: 'one' })), { code: 'overloaded' });
});

t.test('calls without a valid token are 401 and say how to come in', async (t) => {
  const api = await createApi(t);
  for (const authorization of [undefined, 'Basic eA==', 'Bearer', 'Bearer a b', `Bearer ${'x'.repeat(30)}`]) {
    const answer = await api.call(
      null,
      'GET',
      '/api/workflows',
      authorization === undefined ? {} : { headers: { authorization } },
    );
    t.match(answer, { status: 401, body: { code: 'unauthenticated' } }, authorization ?? 'none');
    t.match(answer.headers.get('www-authenticate'), /^Bearer/);
  }
  const expired = await api.token('ada', { expiresIn: -60 });
  t.equal(
    (await api.call(null, 'GET', '/api/workflows', { headers: { authorization: `Bearer ${expired}` } }))
      .status,
    401,
  );
  t.equal((await api.call(null, 'GET', '/api/workflows?token=x')).status, 401);
});
