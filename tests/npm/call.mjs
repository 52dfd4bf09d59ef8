// One call with one client per line: JSON on standard input says which, on standard output what came.
//   {client, what, baseURL, apiKey, defaultQuery}
//   {result} or {error: {name, status, message}}

import { createInterface } from "node:readline";

const chat = { model: "gpt-4o-mini", messages: [{ role: "user", content: "Grüße, 你好" }] };
const message = { ...chat, model: "claude-opus-5-5", max_tokens: 16 };

function options(ask) {
  const made = { baseURL: ask.baseURL, apiKey: ask.apiKey, maxRetries: 0 };
  if (ask.defaultQuery) made.defaultQuery = ask.defaultQuery;
  return made;
}

async function openai(name, ask) {
  const { default: OpenAI } = await import(name);
  const client = new OpenAI(options(ask));
  if (ask.what === "stream") {
    const parts = [];
    for await (const part of await client.chat.completions.create({ ...chat, stream: true }))
      parts.push(part.choices[0].delta.content);
    return parts;
  }
  return (await client.chat.completions.create(chat)).choices[0].message.content;
}

async function anthropic(ask) {
  const { default: Anthropic } = await import("@anthropic-ai/sdk");
  const client = new Anthropic(options(ask));
  if (ask.what === "stream") {
    const parts = [];
    for await (const event of client.messages.stream(message))
      if (event.type === "content_block_delta") parts.push(event.delta.text);
    return parts;
  }
  return (await client.messages.create(message)).content[0].text;
}

async function plain(ask) {
  const answer = await fetch(ask.baseURL, {
    method: "POST",
    headers: { Authorization: `Bearer ${ask.apiKey}`, "Content-Type": "application/json" },
    body: JSON.stringify(chat),
  });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error.message), { status: answer.status });
  return body.choices[0].message.content;
}

const clients = {
  fetch: plain,
  openai: (ask) => openai("openai", ask),
  "openai-6": (ask) => openai("openai-6", ask),
  "@anthropic-ai/sdk": anthropic,
};

async function answer(ask) {
  try {
    return { result: await clients[ask.client](ask) };
  } catch (error) {
    const { status, message } = error;
    return { error: { name: error.constructor.name, status, message } };
  }
}

for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
process.exit(); // without waiting for idle connections
