import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { isStorableText, limits } from '@ide-orchestrator/protocol';
import { createRemoteJWKSet, errors, type JWTVerifyGetKey, jwtVerify } from 'jose';
import { AppError } from '../errors.js';

/** Who calls, and until when the proof holds. */
export interface Identity {
  /** The token's `sub`. */
  userId: string;
  /** Milliseconds since 1970. */
  expiresAt: number;
}

export interface Authenticator {
  /** Verifies a token. Throws AppError `unauthenticated`, or `overloaded` where the keys cannot be fetched. */
  verify(token: string): Promise<Identity>;
  /** Verifies what an `Authorization` header holds. */
  verifyHeader(header: string | undefined): Promise<Identity>;
}

interface AuthOptions {
  publicKeyPem: string | null;
  jwksUrl: string | null;
  secret: string | null;
  issuer: string | null;
  audience: string | null;
}

const toleranceSeconds = 5;
const tokenCharacters = 16_384;
const cachedTokens = 10_000;
/** The last moment that a Date can hold, in milliseconds since 1970. */
const lastMoment = 8_640_000_000_000_000;
/** A verified token is looked at again after this long, so that a key withdrawn from a JWKS ends its tokens. */
const cachedMs = 10 * 60_000;
const asymmetric = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
];

/** Builds the check of tokens from the one key that is configured; throws at start where the key is of no use. */
export function createAuthenticator(deps: { auth: AuthOptions; now: () => number }): Authenticator {
  const { auth, now } = deps;
  const { key, algorithms } = keyOf(auth);
  const verified = new Map<string, Identity & { checkAgainAt: number }>();
  const options = {
    algorithms,
    requiredClaims: ['exp', 'sub'],
    clockTolerance: toleranceSeconds,
    ...(auth.issuer === null ? {} : { issuer: auth.issuer }),
    ...(auth.audience === null ? {} : { audience: auth.audience }),
  };

  const check = async (token: string): Promise<Identity> => {
    const currentDate = new Date(now());
    const { payload } = await (typeof key === 'function'
      ? jwtVerify(token, key, { ...options, currentDate })
      : jwtVerify(token, key, { ...options, currentDate }));
    const { sub, exp } = payload;
    if (
      typeof sub !== 'string' ||
      sub.length < 1 ||
      sub.length > limits.userIdCharacters ||
      !isStorableText(sub)
    ) {
      throw unauthenticated(`The token's sub must be text of 1 to ${limits.userIdCharacters} characters.`);
    }
    // A NumericDate may have a fraction and may lie beyond every calendar (RFC 7519, 2); a ticket and a Date may not.
    return { userId: sub, expiresAt: Math.min(Math.floor((exp ?? 0) * 1000), lastMoment) };
  };

  const verify = async (token: string): Promise<Identity> => {
    if (token === '' || token.length > tokenCharacters) throw unauthenticated('The token is not valid.');
    // The hash, not the token: nobody who reads this memory can call in somebody's name.
    const fingerprint = createHash('sha256').update(token).digest('base64');
    const known = verified.get(fingerprint);
    if (known !== undefined) {
      if (known.checkAgainAt > now()) return known;
      verified.delete(fingerprint);
    }
    let identity: Identity;
    try {
      identity = await check(token);
    } catch (cause) {
      throw refusalOf(cause);
    }
    if (verified.size >= cachedTokens) {
      const oldest = verified.keys().next();
      if (oldest.done !== true) verified.delete(oldest.value);
    }
    verified.set(fingerprint, { ...identity, checkAgainAt: Math.min(identity.expiresAt, now() + cachedMs) });
    return identity;
  };

  return {
    verify,
    verifyHeader: (header) => {
      const match = /^Bearer +([\w.~+/=-]+) *$/i.exec(header ?? '');
      if (match?.[1] === undefined) {
        return Promise.reject(
          unauthenticated(
            header === undefined
              ? 'Send Authorization: Bearer <token>.'
              : 'The header Authorization must be Bearer <token>.',
          ),
        );
      }
      return verify(match[1]);
    },
  };
}

function unauthenticated(detail: string, cause?: unknown) {
  return new AppError('unauthenticated', detail, cause === undefined ? {} : { cause });
}

/** A kind of key admits only its own algorithms: a public key can never be used as the secret of HS256. */
function keyOf(auth: AuthOptions): { key: KeyObject | Uint8Array | JWTVerifyGetKey; algorithms: string[] } {
  if (auth.publicKeyPem !== null) {
    if (auth.publicKeyPem.includes('PRIVATE KEY')) throw new Error('JWT_PUBLIC_KEY holds a private key');
    const key = createPublicKey(auth.publicKeyPem);
    return { key, algorithms: algorithmsOf(key) };
  }
  if (auth.jwksUrl !== null) {
    return {
      key: createRemoteJWKSet(new URL(auth.jwksUrl), { timeoutDuration: 3000 }),
      algorithms: asymmetric,
    };
  }
  const secret = Buffer.from(auth.secret ?? '', 'utf8');
  if (secret.length < 32) throw new Error('JWT_SECRET must be at least 32 bytes');
  return { key: new Uint8Array(secret), algorithms: ['HS256'] };
}

function algorithmsOf(key: KeyObject): string[] {
  switch (key.asymmetricKeyType) {
    case 'rsa':
      if ((key.asymmetricKeyDetails?.modulusLength ?? 0) < 2048)
        throw new Error('JWT_PUBLIC_KEY is an RSA key below 2048 bits');
      return ['RS256'];
    case 'ec': {
      const curves: Record<string, string> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' };
      const algorithm = curves[key.asymmetricKeyDetails?.namedCurve ?? ''];
      if (algorithm !== undefined) return [algorithm];
      break;
    }
    case 'ed25519':
      return ['EdDSA', 'Ed25519'];
  }
  throw new Error(
    'JWT_PUBLIC_KEY is of a kind that is not supported: RSA, EC (P-256, P-384, P-521) or Ed25519',
  );
}

/** What is wrong with the token is said as far as its holder may know; a JWKS that cannot be had is our fault, not the token's. */
function refusalOf(cause: unknown): Error {
  if (cause instanceof errors.JWTExpired) return unauthenticated('The token has expired.', cause);
  if (cause instanceof errors.JWTClaimValidationFailed)
    return unauthenticated(`The token's ${cause.claim} is missing or not accepted here.`, cause);
  if (cause instanceof errors.JWKSTimeout || cause instanceof errors.JWKSInvalid) return keysAway(cause);
  if (cause instanceof errors.JOSEError && cause.code !== 'ERR_JOSE_GENERIC')
    return unauthenticated('The token is not valid.', cause);
  if (cause instanceof errors.JOSEError || (cause instanceof TypeError && cause.message === 'fetch failed'))
    return keysAway(cause);
  if (cause instanceof Error && 'code' in cause && cause.code === 'unauthenticated') return cause;
  return unauthenticated('The token is not valid.', cause);
}

function keysAway(cause: Error) {
  return new AppError(
    'overloaded',
    'The keys that tokens are checked with cannot be fetched at the moment.',
    { cause, retryAfterSeconds: 5 },
  );
}
