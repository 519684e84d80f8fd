// What npm capnweb's own flow control makes of a history: standard input has {"steps": [["send", time, size] or
// ["acknowledge", time, index of the chunk], ...]} as JSON, standard output gets the window after each step.
// It does not export the class, so this takes it out of the package's file.
import { readFile } from "node:fs/promises";

const source = await readFile(new URL("node_modules/capnweb/dist/index.js", import.meta.url), "utf8");
const module = `${source}\nexport { FlowController };`;
const { FlowController } = await import(`data:text/javascript;base64,${Buffer.from(module).toString("base64")}`);

let text = "";
for await (const piece of process.stdin) text += piece;
let time = 0;
const flow = new FlowController(() => time);
const tokens = [];
const windows = [];
for (const [kind, at, what] of JSON.parse(text).steps) {
  time = at;
  if (kind === "send") tokens.push(flow.onSend(what).token);
  else flow.onAck(tokens[what]);
  windows.push(flow.window);
}
console.log(JSON.stringify(windows));
