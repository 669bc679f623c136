// Everything is read from this page's own folder: the library, its WebAssembly, and the network in model/.
import {
  AutoImageProcessor,
  AutoModel,
  ImageClassificationPipeline,
  RawImage,
  env,
} from "./transformers/transformers.min.js";

const TOP_K = 5;
const element = (id) => document.getElementById(id);
const here = (path) => new URL(path, import.meta.url).href;

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = here("./");
env.backends.onnx.wasm.numThreads = 1; // more need headers that a static host may not send
env.backends.onnx.wasm.wasmPaths = {
  mjs: here("transformers/ort-wasm-simd-threaded.asyncify.mjs"),
  wasm: here("transformers/ort-wasm-simd-threaded.asyncify.wasm"),
};

// transformers.js knows no model type "skvit" or "skformer". Its AutoModel runs any graph of unknown type as it is,
// which is all that a classifier needs.
async function load() {
  const [model, processor] = await Promise.all([
    AutoModel.from_pretrained("model", { dtype: "q8", device: "wasm" }),
    AutoImageProcessor.from_pretrained("model"),
  ]);
  return new ImageClassificationPipeline({ task: "image-classification", model, processor });
}

function show(answers) {
  element("classes").replaceChildren(
    ...answers.map(({ label, score }) => {
      const item = document.createElement("li");
      item.innerHTML = '<div class="name"><span></span><span></span></div><div class="track"><div class="bar"></div></div>';
      const [name, percent] = item.querySelectorAll("span");
      name.textContent = label;
      percent.textContent = `${(100 * score).toFixed(1)} %`;
      item.querySelector(".bar").style.width = `${100 * score}%`;
      return item;
    }),
  );
}

async function classify(pipeline, blob) {
  element("classes").replaceChildren();
  try {
    const image = await RawImage.fromBlob(blob);
    element("image").src = URL.createObjectURL(blob);
    element("image").hidden = false;
    element("invitation").hidden = true;
    const start = performance.now();
    const answers = await pipeline(image, { top_k: TOP_K });
    element("status").textContent = `${image.width} × ${image.height} pixels, ${Math.round(performance.now() - start)} ms`;
    show(answers);
  } catch (error) {
    console.error(error);
    element("status").textContent = "This file is not an image that the browser can read: choose another.";
  }
}

function listen(pipeline) {
  const [file, drop] = [element("file"), element("drop")];
  file.disabled = false;
  file.addEventListener("change", () => file.files.length && classify(pipeline, file.files[0]));
  for (const event of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      drop.classList.toggle("over", event === "dragover");
      if (event === "drop" && dragged.dataTransfer.files.length) classify(pipeline, dragged.dataTransfer.files[0]);
    });
  }
}

async function offerExamples(pipeline) {
  for (const path of await (await fetch("examples.json")).json()) {
    const button = document.createElement("button");
    const picture = document.createElement("img");
    [picture.src, picture.alt] = [path, `Classify ${path.split("/").pop()}`];
    button.append(picture);
    button.addEventListener("click", async () => classify(pipeline, await (await fetch(path)).blob()));
    element("examples").append(button);
  }
}

try {
  const pipeline = await load();
  listen(pipeline);
  await offerExamples(pipeline);
  element("status").textContent = "Ready.";
} catch (error) {
  console.error(error);
  element("status").textContent = `The network could not be loaded: ${error.message}`;
}
