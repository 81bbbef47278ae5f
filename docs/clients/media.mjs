// Pictures, sounds and files, with the `openai` package and with the Vercel AI SDK:
// npm install openai ai @ai-sdk/openai-compatible undici && node media.mjs SOCKET PICTURE SOUND FILE

import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText } from 'ai';
import OpenAI, { toFile } from 'openai';
import { Agent, fetch } from 'undici';

const [socketPath, picturePath, soundPath, filePath] = process.argv.slice(2);
const [picture, sound, file] = await Promise.all([picturePath, soundPath, filePath].map((path) => readFile(path)));
const dispatcher = new Agent({ connect: { socketPath } });
const overSocket = (url, init) => fetch(url, { ...init, dispatcher });

const client = new OpenAI({ baseURL: 'http://localhost/v1', apiKey: 'none', fetch: overSocket });
const ask = async (part, question) => {
  const messages = [{ role: 'user', content: [part, { type: 'text', text: question }] }];
  const { choices, usage } = await client.chat.completions.create({ model: 'auto', temperature: 0, messages });
  return { text: choices[0].message.content, tokens: usage.prompt_tokens };
};
const url = `data:image/png;base64,${picture.toString('base64')}`;
console.log((await ask({ type: 'image_url', image_url: { url } }, 'What is in the picture?')).text);
const heard = { data: sound.toString('base64'), format: 'wav' };
console.log((await ask({ type: 'input_audio', input_audio: heard }, 'What do you hear?')).text);

const sent = { filename: basename(filePath), file_data: `data:text/plain;base64,${file.toString('base64')}` };
const read = await ask({ type: 'file', file: sent }, 'What does it say?');
const { id } = await client.files.create({ file: await toFile(file, basename(filePath)), purpose: 'user_data' });
const again = await ask({ type: 'file', file: { file_id: id } }, 'What does it say?');
console.log('the file', read.tokens === again.tokens ? 'is the same' : 'is another', 'by its id');
await client.files.delete(id);

const gemmad = createOpenAICompatible({ name: 'gemmad', baseURL: 'http://localhost/v1', fetch: overSocket });
for (const [part, question] of [
  [{ type: 'image', image: picture, mediaType: 'image/png' }, 'What is in the picture?'],
  [{ type: 'file', data: sound, mediaType: 'audio/wav' }, 'What do you hear?'],
]) {
  const messages = [{ role: 'user', content: [part, { type: 'text', text: question }] }];
  console.log((await generateText({ model: gemmad('auto'), temperature: 0, messages })).text);
}
await dispatcher.close();
