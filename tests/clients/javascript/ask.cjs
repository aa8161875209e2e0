// Asks what its arguments say, with credentials from the environment, and prints what came as one line of JSON.
// node ask.cjs URL MODEL
const { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand } = require("@aws-sdk/client-bedrock-runtime");

async function main([url, modelId]) {
  const client = new BedrockRuntimeClient({ endpoint: url, region: "us-east-1", maxAttempts: 1 });
  const messages = [{ role: "user", content: [{ text: "Tell me about the sea." }] }];
  const whole = await client.send(new ConverseCommand({ modelId, messages }));
  const { stream } = await client.send(new ConverseStreamCommand({ modelId, messages }));
  let streamed = "";
  const kinds = [];
  for await (const event of stream) {
    kinds.push(Object.keys(event)[0]);
    streamed += event.contentBlockDelta?.delta?.text ?? "";
  }
  const body = JSON.stringify({ prompt: "sea" });
  const native = await client.send(new InvokeModelCommand({ modelId, body, contentType: "application/json" }));
  const asked = [...Array(8)].map(() => client.send(new ConverseCommand({ modelId, messages })));
  const together = (await Promise.all(asked)).length;
  let refused = "";
  try {
    await client.send(new ConverseCommand({ modelId: "foo.bar", messages }));
  } catch (error) {
    refused = error.name;
  }
  client.destroy();
  return {
    whole: whole.output.message.content[0].text,
    usage: whole.usage,
    streamed,
    kinds,
    native: JSON.parse(native.body.transformToString()).generation,
    together,
    refused,
  };
}

main(process.argv.slice(2)).then(
  (found) => console.log(JSON.stringify(found)),
  (error) => {
    console.log(JSON.stringify({ error: error.name, status: error.$metadata?.httpStatusCode }));
    process.exit(1);
  },
);
