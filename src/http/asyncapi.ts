import { closeCodes, ownFrames, runFrames, viewerMessages } from '@ide-orchestrator/protocol';
import { z } from 'zod/v4';

/** The AsyncAPI 3.0 document of the viewers' socket, made from the schemas of the frames. */
export function asyncApiOf(info: { title: string; version: string }): object {
  const sent = [...ownFrames, ...runFrames].map(messageOf);
  const taken = viewerMessages.map(messageOf);
  const references = (messages: { name: string }[]) =>
    messages.map(({ name }) => ({ $ref: `#/channels/refinement/messages/${name}` }));
  return {
    asyncapi: '3.0.0',
    info: {
      ...info,
      description: `Frames of one refinement. Close codes: ${Object.values(closeCodes)
        .map(({ close, title }) => `${close} ${title}`)
        .join(' · ')}.`,
      license: { name: 'Apache-2.0' },
    },
    defaultContentType: 'application/json',
    channels: {
      refinement: {
        address: '/api/ws/refinements/{thread_id}',
        description:
          'Credential: ?ticket=, Authorization, sub-protocol `bearer, <token>`, or ?token=; the first present decides.',
        parameters: { thread_id: { description: 'thread_id of the refinement' } },
        messages: Object.fromEntries(
          [...sent, ...taken].map((message) => [
            message.name,
            { $ref: `#/components/messages/${message.name}` },
          ]),
        ),
        bindings: {
          ws: {
            method: 'GET',
            query: {
              type: 'object',
              properties: {
                after: { type: 'integer', minimum: 0, description: 'Last number that was seen' },
                epoch: { type: 'string', description: 'Epoch of that number' },
                ticket: { type: 'string' },
                token: { type: 'string' },
              },
            },
          },
        },
      },
    },
    operations: {
      receiveFrames: {
        action: 'send',
        channel: { $ref: '#/channels/refinement' },
        summary: 'What viewers get',
        messages: references(sent),
      },
      sendMessages: {
        action: 'receive',
        channel: { $ref: '#/channels/refinement' },
        summary: 'What viewers may say',
        messages: references(taken),
      },
    },
    components: {
      messages: Object.fromEntries([...sent, ...taken].map((message) => [message.name, message])),
    },
  };
}

function messageOf(schema: z.ZodType): { name: string; title: string; payload: object } {
  const name = schema.meta()?.id;
  if (name === undefined) throw new Error('a frame has no name for the document');
  const { $schema: _, id: _id, ...payload } = z.toJSONSchema(schema, { unrepresentable: 'any' });
  return { name, title: name, payload };
}
