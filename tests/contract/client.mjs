// The contract as supabase-js sees it: one line of JSON a check, {"name", "error"}; error is null if it holds.
// Environment: SUPABASE_JS (directory with node_modules), URL, ANON_KEY, SERVICE_KEY, EMAIL, PASSWORD.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";

const { createClient } = createRequire(`${process.env.SUPABASE_JS}/`)("@supabase/supabase-js");
const { URL: url, ANON_KEY: anonKey, SERVICE_KEY: serviceKey, EMAIL: email, PASSWORD: password } = process.env;
const PATIENCE_MS = 15_000;
const CALL = { phone_number: "+15550100", direction: "inbound", status: "active" };

const client = (key = anonKey) => createClient(url, key, { auth: { persistSession: false, autoRefreshToken: false } });
const service = client(serviceKey);
const callId = () => `vp-contract-${randomBytes(6).toString("hex")}`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(isSo, what) {
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; await pause(20)) if (isSo()) return;
  assert.fail(`never so: ${what}`);
}

async function done(answer) {
  const { data, error } = await answer;
  assert.equal(error, null, JSON.stringify(error));
  return data;
}

async function placed(columns = {}) {
  const name = callId();
  await done(service.from("calls").insert({ call_id: name, ...CALL, ...columns }));
  return name;
}

// One for all checks that only read: sign-ins are limited.
let reader;
const user = async () => (reader ??= await signedIn());

async function signedIn() {
  const own = client();
  await done(own.auth.signInWithPassword({ email, password }));
  return own;
}

// A channel that is subscribed to PostgreSQL; what it heard, in order, and what was said of the channel itself.
async function listening(who, ...wishes) {
  const heard = { changes: [], system: [], states: [] };
  const channel = who.channel(`contract-${randomBytes(4).toString("hex")}`);
  for (const wish of wishes) channel.on("postgres_changes", { schema: "public", ...wish }, (change) => heard.changes.push(change));
  channel.on("system", {}, (said) => heard.system.push(said));
  channel.subscribe((state) => heard.states.push(state));
  heard.close = () => who.removeChannel(channel);
  await until(() => heard.system.some((said) => said.status === "ok"), "subscribed to PostgreSQL");
  return heard;
}

const checks = {
  "a password signs in": async () => {
    const data = await done(client().auth.signInWithPassword({ email, password }));
    assert.equal(data.user.email, email);
    assert.ok(data.session.refresh_token);
  },
  "a wrong password is refused": async () => {
    const { error } = await client().auth.signInWithPassword({ email, password: "not the password" });
    assert.deepEqual([error.status, error.code], [400, "invalid_credentials"]);
  },
  "nobody signs up by themselves": async () => {
    const { error } = await client().auth.signUp({ email: `${callId()}@example.org`, password: "long enough" });
    assert.equal(error.code, "signup_disabled");
  },
  "the user of a session is known": async () => {
    const data = await done((await user()).auth.getUser());
    assert.equal(data.user.email, email);
  },
  "a refresh token rotates": async () => {
    const own = await signedIn();
    const before = (await own.auth.getSession()).data.session;
    const after = (await done(own.auth.refreshSession())).session;
    assert.notEqual(after.refresh_token, before.refresh_token);
  },
  "signing out revokes": async () => {
    const own = await signedIn();
    const { session } = (await own.auth.getSession()).data;
    await own.auth.signOut({ scope: "local" });
    const { error } = await client().auth.getUser(session.access_token);
    assert.equal(error.name, "AuthSessionMissingError"); // what auth-js makes of session_not_found
    assert.ok((await client().auth.refreshSession({ refresh_token: session.refresh_token })).error);
  },
  "a user's row is read, and not written": async () => {
    const name = await placed();
    assert.equal((await done((await user()).from("calls").select("call_id").eq("call_id", name).single())).call_id, name);
    const { error } = await (await user()).from("calls").update({ status: "failed" }).eq("call_id", name);
    assert.equal(error.code, "42501");
  },
  "a visitor reads nothing": async () => {
    const { error, status } = await client().from("calls").select("*").limit(1);
    assert.deepEqual([error.code, status], ["42501", 401]);
  },
  "a count comes without rows": async () => {
    await placed();
    const since = new Date(Date.now() - 86_400_000).toISOString();
    const { count, data } = await (await user()).from("calls").select("*", { count: "exact", head: true }).gte("start_time", since);
    assert.ok(count >= 1);
    assert.equal(data, null);
  },
  "a call is joined with what was said": async () => {
    const name = await placed();
    await done(service.from("transcripts").insert({ call_id: name, role: "user", content: "hello" }));
    const rows = await done((await user()).from("calls").select("call_id, transcripts(content)").eq("call_id", name));
    assert.deepEqual(rows, [{ call_id: name, transcripts: [{ content: "hello" }] }]);
  },
  "an upsert doubles nothing": async () => {
    const name = await placed();
    await done(service.from("calls").upsert({ call_id: name, ...CALL, status: "completed" }, { onConflict: "call_id" }));
    assert.deepEqual(await done(service.from("calls").select("status").eq("call_id", name)), [{ status: "completed" }]);
  },
  "the three subscriptions of the dashboard": async () => {
    const heard = await listening(
      await user(),
      { event: "INSERT", table: "calls" },
      { event: "UPDATE", table: "calls" },
      { event: "INSERT", table: "alerts_history" },
    );
    const name = await placed();
    await done(service.from("calls").update({ status: "completed", duration_seconds: 7 }).eq("call_id", name));
    await done(service.from("alerts_history").insert({ service: "vp-contract", severity: "info", message: name }));
    await until(() => heard.changes.length >= 3, "three changes");
    const told = heard.changes.map((change) => [change.eventType, change.table, change.new.status ?? change.new.message]);
    assert.deepEqual(told, [["INSERT", "calls", "active"], ["UPDATE", "calls", "completed"], ["INSERT", "alerts_history", name]]);
    await heard.close();
  },
  "a visitor is told nothing": async () => {
    const visitor = client();
    const heard = await listening(visitor, { event: "*", table: "calls" });
    const beside = await listening(service, { event: "INSERT", table: "calls" });
    await placed();
    await until(() => beside.changes.length > 0, "heard beside");
    await pause(300);
    assert.deepEqual(heard.changes.filter((change) => Object.keys(change.new).length > 0), []);
    await heard.close();
    await beside.close();
  },
  "a filter holds": async () => {
    const heard = await listening(await user(), { event: "UPDATE", table: "calls", filter: "status=in.(completed,failed)" });
    const name = await placed();
    await done(service.from("calls").update({ status: "transferred" }).eq("call_id", name));
    await done(service.from("calls").update({ status: "failed" }).eq("call_id", name));
    await until(() => heard.changes.length > 0, "one change");
    assert.deepEqual(heard.changes.map((change) => change.new.status), ["failed"]);
    await heard.close();
  },
  "changes come in order": async () => {
    const heard = await listening(await user(), { event: "INSERT", table: "calls" });
    const names = Array.from({ length: 100 }, callId);
    await done(service.from("calls").insert(names.map((name) => ({ call_id: name, ...CALL }))));
    await until(() => heard.changes.length >= names.length, "all changes");
    assert.deepEqual(heard.changes.map((change) => change.new.call_id), names);
    await heard.close();
  },
  "a deleted row is told by its key": async () => {
    const heard = await listening(await user(), { event: "DELETE", table: "calls" });
    const name = await placed();
    const [row] = await done(service.from("calls").delete().eq("call_id", name).select("id"));
    await until(() => heard.changes.length > 0, "one change");
    assert.deepEqual(heard.changes.map((change) => change.old), [{ id: row.id }]);
    await heard.close();
  },
  "a broken connection is made again": async () => {
    const heard = await listening(service, { event: "INSERT", table: "calls" });
    const before = heard.system.length;
    // As a network would: the socket ends without a word of the client.
    (service.realtime.conn ?? service.realtime.socketAdapter?.getSocket?.()?.conn).close(3001, "broken");
    await until(() => heard.system.length > before, "subscribed again");
    const name = await placed();
    await until(() => heard.changes.some((change) => change.new.call_id === name), "the row after the gap");
    await heard.close();
  },
  "a renewed session goes on": async () => {
    const own = await signedIn();
    const heard = await listening(own, { event: "INSERT", table: "calls" });
    await done(own.auth.refreshSession());
    await pause(200);
    const name = await placed();
    await until(() => heard.changes.some((change) => change.new.call_id === name), "the row after the renewal");
    await heard.close();
  },
};

for (const [name, check] of Object.entries(checks)) {
  let error = null;
  try {
    await check();
  } catch (caught) {
    error = String(caught?.stack ?? caught);
  }
  console.log(JSON.stringify({ name, error }));
}
process.exit(0);
