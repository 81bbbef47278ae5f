// Ollama's package for Node: npm install ollama undici && node ollama_chat.mjs [SOCKET]

import { Ollama } from 'ollama';
import { Agent, fetch } from 'undici';

const socketPath = process.argv[2] ?? '/run/gemmad/api.sock';
const dispatcher = new Agent({ connect: { socketPath } });
const client = new Ollama({ host: 'http://localhost', fetch: (url, init) => fetch(url, { ...init, dispatcher }) });

const asked = { model: 'auto', options: { temperature: 0 } };
const messages = [{ role: 'user', content: 'What is the capital of France?' }];
const answer = await client.chat({ ...asked, messages });
console.log(answer.message.content);

for await (const chunk of await client.chat({ ...asked, messages, stream: true })) {
  process.stdout.write(chunk.message.content);
}
console.log();

const schema = { type: 'object', properties: { name: { type: 'string' }, age: { type: 'integer' } }, required: ['name', 'age'] };
const { response } = await client.generate({
  ...asked,
  prompt: 'Extract the data as JSON with name and age: Anna is 27 years old and lives in Rome.',
  format: schema,
});
const { name, age } = JSON.parse(response);
console.log(name, age);

const { models } = await client.list();
console.log(models.map((model) => model.name).join(' '));
await dispatcher.close();
