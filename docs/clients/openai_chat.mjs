// The `openai` package for Node: npm install openai undici zod && node openai_chat.mjs [SOCKET]

import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { Agent, fetch } from 'undici';
import { z } from 'zod';

const socketPath = process.argv[2] ?? '/run/gemmad/api.sock';
const dispatcher = new Agent({ connect: { socketPath } });
const client = new OpenAI({
  baseURL: 'http://localhost/v1',
  apiKey: 'none', // the socket knows who calls
  fetch: (url, init) => fetch(url, { ...init, dispatcher }),
});

const messages = [{ role: 'user', content: 'What is the capital of France?' }];
const answer = await client.chat.completions.create({ model: 'auto', messages, temperature: 0 });
console.log(answer.choices[0].message.content);

for await (const chunk of await client.chat.completions.create({ model: 'auto', messages, temperature: 0, stream: true })) {
  process.stdout.write(chunk.choices[0]?.delta.content ?? '');
}
console.log();

const runner = client.chat.completions.runTools({
  model: 'auto',
  temperature: 0,
  messages: [{ role: 'user', content: 'Turn on the light in the kitchen.' }],
  tools: [
    {
      type: 'function',
      function: {
        name: 'set_light',
        description: 'Turn a light on or off',
        parameters: {
          type: 'object',
          properties: {
            room: { type: 'string', description: 'Name of the room' },
            state: { type: 'string', description: 'on or off', enum: ['on', 'off'] },
          },
          required: ['room', 'state'],
        },
        parse: JSON.parse,
        function: ({ room, state }) => {
          console.log('set_light', room, state);
          return { ok: true };
        },
      },
    },
  ],
});
console.log(await runner.finalContent());

const { message } = (
  await client.chat.completions.parse({
    model: 'auto',
    temperature: 0,
    messages: [{ role: 'user', content: 'Extract the data as JSON with name and age: Anna is 27 years old and lives in Rome.' }],
    response_format: zodResponseFormat(z.object({ name: z.string(), age: z.number().int() }), 'person'),
  })
).choices[0];
console.log(message.parsed.name, message.parsed.age);

const response = await client.responses.create({ model: 'auto', input: 'What is the capital of France?', temperature: 0 });
console.log(response.output_text);
await dispatcher.close();
