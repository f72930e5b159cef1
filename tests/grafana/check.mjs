// node check.mjs DASHBOARD: exits with 1 and says what is wrong where the dashboard's JSON doesn't fit schema.ts.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const [file] = process.argv.slice(2);
const dashboard = JSON.parse(readFileSync(file, "utf8"));
const source = `${readFileSync(here("schema.ts"), "utf8")}
export const dashboard: OurDashboard = ${JSON.stringify(dashboard, null, 1)};
`;

const options = {
  lib: ["lib.es2022.d.ts"],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  noEmit: true,
  skipLibCheck: true,
  strict: true,
  target: ts.ScriptTarget.ES2022,
  types: [],
};
const name = here("dashboard.mts");
const host = ts.createCompilerHost(options);
const { fileExists, getSourceFile } = host;
host.fileExists = (path) => path === name || fileExists(path);
host.getSourceFile = (path, ...rest) =>
  path === name ? ts.createSourceFile(name, source, ts.ScriptTarget.ES2022) : getSourceFile(path, ...rest);

const problems = ts.getPreEmitDiagnostics(ts.createProgram([name], options, host));
if (problems.length) {
  console.error(ts.formatDiagnostics(problems, {
    getCanonicalFileName: (path) => path,
    getCurrentDirectory: () => here("."),
    getNewLine: () => "\n",
  }));
  process.exit(1);
}
