// The Vercel AI SDK: npm install ai @ai-sdk/openai-compatible undici zod && node ai_sdk.mjs [SOCKET [MODEL]]

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateObject, generateText, stepCountIs, streamText, tool } from 'ai';
import { Agent, fetch } from 'undici';
import { z } from 'zod';

const [socketPath = '/run/gemmad/api.sock', id = 'auto'] = process.argv.slice(2);
const dispatcher = new Agent({ connect: { socketPath } });
const gemmad = createOpenAICompatible({
  name: 'gemmad',
  baseURL: 'http://localhost/v1',
  supportsStructuredOutputs: true,
  fetch: (url, init) => fetch(url, { ...init, dispatcher }),
});
const model = gemmad(id);

const { textStream } = streamText({ model, temperature: 0, prompt: 'What is the capital of France?' });
for await (const text of textStream) process.stdout.write(text);
console.log();

const { text } = await generateText({
  model,
  temperature: 0,
  prompt: 'Turn on the light in the kitchen.',
  stopWhen: stepCountIs(2),
  tools: {
    set_light: tool({
      description: 'Turn a light on or off',
      inputSchema: z.object({
        room: z.string().describe('Name of the room'),
        state: z.enum(['on', 'off']).describe('on or off'),
      }),
      execute: async ({ room, state }) => {
        console.log('set_light', room, state);
        return { ok: true };
      },
    }),
  },
});
console.log(text);

const { object } = await generateObject({
  model,
  temperature: 0,
  prompt: 'Extract the data as JSON with name and age: Anna is 27 years old and lives in Rome.',
  schema: z.object({ name: z.string(), age: z.number().int() }),
});
console.log(object.name, object.age);
await dispatcher.close();
