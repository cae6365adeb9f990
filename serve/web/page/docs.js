"use strict";
const element = (tag, text, ...children) => {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};

function curlOf(path, method, operation, keys) {
  const query = (operation.parameters || []).filter((one) => one.in === "query").map((one) => `${one.name}=…`).join("&");
  const url = new URL(".", location.href).href.replace(/\/$/, "") + path + (query ? `?${query}` : "");
  const words = ["curl"], types = Object.keys(operation.requestBody?.content || {});
  if (keys) words.push("-H 'Authorization: Bearer KEY'");
  if (types.some((type) => type.startsWith("image/"))) words.push("--data-binary @PICTURE.jpg -H 'Content-Type: image/jpeg'");
  else if (method === "post") words.push("-X POST");
  return [...words, `'${url}'`].join(" ");
}

function shown(path, method, operation, spec) {
  const row = (name, text) => element("tr", "", element("td", "", element("code", name)), element("td", text));
  const body = element("div");
  const curl = element("pre", curlOf(path, method, operation, spec.security));
  curl.tabIndex = 0;
  body.className = "body";
  body.append(curl);
  const parameters = (operation.parameters || []).map((one) => row(one.name, `${one.in}, ${one.schema.type}`));
  const takes = Object.keys(operation.requestBody?.content || {}).map((type) => row(type, "body"));
  const answers = Object.entries(operation.responses).map(([status, one]) => row(status, one.description));
  body.append(element("table", "", ...parameters, ...takes, ...answers));
  const schema = operation.responses["200"].content?.["application/json"]?.schema;
  if (schema) {
    const name = (schema.$ref || schema.items?.$ref || "").split("/").pop();
    const json = element("pre", JSON.stringify(name ? spec.components.schemas[name] : schema, null, 1));
    json.tabIndex = 0;
    body.append(element("details", "", element("summary", "Schema of the answer"), json));
  }
  const head = element("summary", "", element("b", method.toUpperCase()), element("code", path), element("span", operation.summary));
  return element("details", "", head, body);
}

fetch("openapi.json").then((reply) => reply.json()).then((spec) => {
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const [tag] = operation.tags;
      if (!groups.has(tag)) groups.set(tag, element("section", "", element("h2", tag)));
      groups.get(tag).append(shown(path, method, operation, spec));
    }
  }
  document.getElementById("routes").append(...groups.values());
}).catch(() => {
  const problem = document.getElementById("problem");
  problem.textContent = "The server cannot be reached. Is it still running?";
  problem.hidden = false;
});
