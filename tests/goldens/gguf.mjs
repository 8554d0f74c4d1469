// What llama.cpp makes of the files that gguf_files.py writes: tokens of texts, the tokens that end an answer, and a greedy answer. See gguf.py.
import fs from "node:fs";
import path from "node:path";
import {getLlama} from "node-llama-cpp";

const TEXTS = ["hell", " he  hell's\n\n  world 12345 1 X", "it'S déjà 猫\u3000vu…\r\n\tif (a ~= b) { 1234567; }  ", "<user>he<stop>hell<answer> <|im_end|>"];
const folder = process.argv[2];
const llama = await getLlama({gpu: false, build: "never", logLevel: "disabled"});
const out = {};
for (const file of fs.readdirSync(folder).filter((f) => f.endsWith(".gguf") && !f.startsWith("refused-")).sort()) {
    const model = await llama.loadModel({modelPath: path.join(folder, file)});
    const begins = model.tokens.shouldPrependBosToken ? [model.tokens.bos] : [];
    const tokens = TEXTS.map((text) => [...begins, ...model.tokenize(text, true)]);
    const ends = [...Array(model.fileInfo.metadata.tokenizer.ggml.tokens.length).keys()].filter((id) => model.isEogToken(id));
    const context = await model.createContext({contextSize: 64, threads: 1});
    const answers = [];
    for (const prompt of tokens) {
        const sequence = context.getSequence();
        const answer = [];
        for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
            answer.push(token);
            if (answer.length === 8 || ends.includes(token)) break;
        }
        answers.push(answer);
        sequence.dispose();
    }
    out[file] = {tokens, ends, answers, shown: tokens.map((ids) => model.detokenize(ids.filter((id) => !begins.includes(id)), false))};
    await context.dispose();
    await model.dispose();
}
console.log(JSON.stringify({texts: TEXTS, files: out}, null, 0).replaceAll('"}},"', '"}},\n"').replaceAll('},"', '},\n"'));
process.exit(0);
