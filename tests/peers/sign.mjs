// Signs a body with a third-party library and prints the request headers as JSON.
// Usage: node sign.mjs standard-webhooks|svix|github|stripe BODY_FILE SECRET ID UNIX_SECONDS   env: PEERS (github uses neither ID nor time)
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const peers = process.env.PEERS ?? join(dirname(fileURLToPath(import.meta.url)), "../../.peers");
const { load } = await import(pathToFileURL(join(peers, "npm/load.mjs")).href);

const [scheme, file, secret, id, seconds] = process.argv.slice(2);
const schemes = {
  "standard-webhooks": async () => {
    const { Webhook } = await load("standardwebhooks");
    return { "webhook-id": id, "webhook-timestamp": seconds, "webhook-signature": new Webhook(secret).sign(id, time, body) };
  },
  svix: async () => {
    const { Webhook } = await load("svix");
    return { "svix-id": id, "svix-timestamp": seconds, "svix-signature": new Webhook(secret).sign(id, time, body) };
  },
  github: async () => {
    const { sign } = await load("@octokit/webhooks-methods");
    return { "x-hub-signature-256": await sign(secret, body) };
  },
  stripe: async () => {
    const Stripe = (await load("stripe")).default;
    const header = new Stripe("unused").webhooks.generateTestHeaderString({ payload: body, secret, timestamp: Number(seconds) });
    return { "stripe-signature": header };
  },
};
if (!schemes[scheme] || !secret) {
  console.error("usage: sign.mjs " + Object.keys(schemes).join("|") + " BODY_FILE SECRET ID UNIX_SECONDS");
  process.exit(2);
}
const body = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(readFileSync(file));
const time = new Date(Number(seconds) * 1000);
console.log(JSON.stringify(await schemes[scheme]()));
