import t from 'tap';
import { AppError } from '../../src/errors.js';
import { hear, type MessageDeps, type Session } from '../../src/http/viewer-messages.js';
import { createLogger } from '../../src/telemetry/logger.js';

/** A session whose database and keys end as the test says. */
const sessionWith = (outage: { gate?: unknown; verify?: unknown }) => {
  const sent: { event_type: string; data: { code: string } }[] = [];
  const closes: number[] = [];
  const logs: string[] = [];
  const deps: MessageDeps = {
    db: {} as MessageDeps['db'],
    gate: () => Promise.reject(outage.gate),
    authenticator: {
      verify: () => Promise.reject(outage.verify),
      verifyHeader: () => Promise.reject(outage.verify),
    },
    directory: { notice: () => undefined },
    log: createLogger({
      level: 'info',
      production: false,
      destination: { write: (line) => void logs.push(line) },
    }),
  };
  const session: Session = {
    admission: {
      viewerId: 'v',
      threadId: 't',
      proposalId: 'p',
      userId: 'ada',
      access: 'owner',
      accessVersion: 1,
      expiresAt: 0,
      position: {},
      traceId: '',
      release: () => undefined,
    },
    viewer: {
      id: 'v',
      userId: 'ada',
      access: 'owner',
      accessVersion: 1,
      traceId: '',
      send: (message) => sent.push(JSON.parse(message.toString())),
      subscribe: () => undefined,
      unsubscribe: () => undefined,
      isClosed: () => false,
      bufferedBytes: () => 0,
      cork: (sends) => sends(),
      close: (code) => void closes.push(code),
    },
    attachment: { detach: () => undefined, drained: () => undefined, sendToRun: () => true },
    prolong: () => undefined,
  };
  return { deps, session, sent, closes, logs };
};

t.test(
  'a cancel that could not be written down is told, with the reason that the viewer can act on',
  async (t) => {
    const away = sessionWith({ gate: new AppError('database_unavailable', 'away') });
    await hear(away.deps, away.session, '{"type":"cancel"}');
    t.match(away.sent, [{ event_type: 'on_rejected', data: { code: 'database_unavailable' } }]);
    t.same(away.logs, []);
    const broken = sessionWith({ gate: new Error('column secret does not exist') });
    await hear(broken.deps, broken.session, '{"type":"cancel"}');
    t.match(broken.sent, [{ event_type: 'on_rejected', data: { code: 'internal_error' } }]);
    t.notMatch(JSON.stringify(broken.sent), 'secret');
    t.equal(broken.logs.length, 1);
  },
);

t.test(
  'while the keys are away a fresh token is not judged, and the session goes on as it was',
  async (t) => {
    const away = sessionWith({ verify: new AppError('overloaded', 'keys are away') });
    await hear(away.deps, away.session, '{"type":"token","token":"x"}');
    t.match(away.sent, [{ event_type: 'on_rejected', data: { code: 'overloaded' } }]);
    t.same(away.closes, []);
    const refused = sessionWith({ verify: new AppError('unauthenticated', 'no') });
    await hear(refused.deps, refused.session, '{"type":"token","token":"x"}');
    t.same(refused.closes, [4401]);
  },
);
