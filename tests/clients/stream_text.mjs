// The AI SDK's sample against the gateway: base URL, key and the model's id are all that is set.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { streamText } from 'ai';

const [baseURL, apiKey] = process.argv.slice(2);
const gemma = createOpenAICompatible({ name: 'gemma', baseURL, apiKey });

const { textStream, response } = streamText({
  model: gemma('google/gemma-4-26b-a4b-it'),
  prompt: 'What is the capital of France?',
  temperature: 0,
});
const pieces = [];
for await (const text of textStream) pieces.push(text);
const { modelId, headers } = await response;
console.log(JSON.stringify({ text: pieces.join(''), pieces: pieces.length, model: modelId, backend: headers['x-gemmad-backend'] ?? null }));
