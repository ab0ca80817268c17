import tap from 'tap';
import { planOf } from '../../chaos/plan.js';
import { createRandom } from '../../chaos/random.js';

tap.test('the plan is a function of its seed', async (t) => {
  t.strictSame(planOf('one', 120), planOf('one', 120));
  t.notSame(planOf('one', 120), planOf('two', 120));
  const random = createRandom('one');
  const first = random.fork('a').next();
  random.fork('b').next();
  t.equal(random.fork('a').next(), first, 'what one purpose draws does not move another');
});

tap.test(
  'a campaign of twelve minutes kills 100 replicas and PostgreSQL 50 times, and spares one at last',
  async (t) => {
    const plan = planOf('any', 720);
    const kills = (victim: RegExp) =>
      plan.filter((fault) => fault.kind === 'kill' && victim.test(fault.victim)).length;
    t.ok(kills(/^orchestrator/) >= 100, `${kills(/^orchestrator/)} of orchestrators`);
    t.ok(kills(/^(postgres|backend)$/) >= 50, `${kills(/^(postgres|backend)$/)} of PostgreSQL`);
    t.ok(kills(/^runtime$/) >= 10, `${kills(/^runtime$/)} of the runtime`);
    const late = plan.filter(({ atMs }) => atMs >= 0.6 * 720_000);
    t.notOk(late.some((fault) => fault.kind === 'kill' && fault.victim === 'orchestrator-1'));
    t.ok(
      plan.every(({ atMs }, index) => atMs <= 720_000 && atMs >= (plan[index - 1]?.atMs ?? 0)),
      'in order',
    );
  },
);
