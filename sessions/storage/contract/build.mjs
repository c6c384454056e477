// Compiles LucidAnchors.sol into LucidAnchors.json: `node build.mjs`, or `node build.mjs --check` to only compare.
// The compiler is the npm package `solc`, in the version that package.json pins.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const solc = createRequire(import.meta.url)("solc");
const source = new URL("LucidAnchors.sol", import.meta.url);
const artefact = new URL("LucidAnchors.json", import.meta.url);

const settings = {
  optimizer: { enabled: true, runs: 10000 },
  // Paris has no PUSH0, so the same bytes run on every chain in use: mainnet, anvil, and private chains and rollups
  // that lag behind. Shanghai would save some ten gas a call.
  evmVersion: "paris",
  // Without the hash of the sources' metadata, comments and file paths do not change the bytecode.
  metadata: { bytecodeHash: "none" },
};
const input = {
  language: "Solidity",
  sources: { "LucidAnchors.sol": { content: readFileSync(source, "utf8") } },
  settings: {
    ...settings,
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.methodIdentifiers"] } },
  },
};

const output = JSON.parse(solc.compile(JSON.stringify(input)));
if (output.errors?.length) {
  console.error(output.errors.map((error) => error.formattedMessage).join("\n"));
  process.exit(1);
}
const { abi, evm } = output.contracts["LucidAnchors.sol"].LucidAnchors;
const text =
  JSON.stringify(
    {
      contractName: "LucidAnchors",
      compiler: solc.version(),
      settings,
      methodIdentifiers: evm.methodIdentifiers,
      abi,
      bytecode: "0x" + evm.bytecode.object,
      deployedBytecode: "0x" + evm.deployedBytecode.object,
    },
    null,
    2,
  ) + "\n";

if (process.argv.includes("--check")) {
  if (readFileSync(artefact, "utf8") !== text) {
    console.error("LucidAnchors.json is not what LucidAnchors.sol compiles to: run node build.mjs");
    process.exit(1);
  }
} else {
  writeFileSync(artefact, text);
}
