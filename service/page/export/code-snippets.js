// Code that sends the same request without the page: curl, Python, the command line client.

import { asksForSegments, BASE, NDJSON } from '../api/http-api.js';
import { find } from '../common/dom.js';
import { setText } from '../i18n/language.js';

/**
 * The request that the code sends.
 *
 * @typedef {object} Call
 * @property {string} name of the file
 * @property {import('../api/http-api.js').Options} options
 * @property {import('../api/http-api.js').Options | null} live options of the live stream while its card is open, otherwise null
 * @property {boolean} key whether a key is needed
 */

/** @type {Call} */
let shown = { name: '', options: [], live: null, key: false };

/** Connect the choice of the language and the copy button. */
export function startSnippets() {
  find('code-choice', HTMLElement).addEventListener('change', write);
  const button = find('copy', HTMLButtonElement);
  button.addEventListener('click', async () => {
    const copied = await copy(find('code', HTMLElement));
    setText(button, copied ? 'code.copied' : 'code.failed');
    setTimeout(() => setText(button, 'code.copy'), 2000);
  });
}

/** @param {Call} call the request to show code for */
export function showSnippets(call) {
  shown = call;
  write();
}

function write() {
  const python = find('code-python', HTMLInputElement).checked;
  const { live, ...call } = shown;
  find('code-shell-name', HTMLElement).textContent = live ? 'Shell' : 'curl';
  if (live) {
    find('code', HTMLElement).textContent = python ? livePythonLines(live, call) : liveShellLine(live, call);
  } else {
    find('code', HTMLElement).textContent = python ? pythonLines(call) : curlLine(call);
  }
}

/** @param {Omit<Call, 'live'>} call */
function curlLine({ name, options, key }) {
  const parts = ['curl'];
  if (asksForSegments(options)) {
    parts.push('--no-buffer', `-H ${shellWord(`Accept: ${NDJSON}`)}`);
  }
  if (key) {
    parts.push('-H "Authorization: Bearer $API_KEY"');
  }
  parts.push(`-F ${shellWord(`file=@${curlFile(name)}`)}`);
  parts.push(...options.map(([option, value]) => `-F ${shellWord(`${option}=${value}`)}`));
  parts.push(shellWord(String(new URL('recognize', BASE))));
  return parts.join(' \\\n  ');
}

/** @param {Omit<Call, 'live'>} call */
function pythonLines({ name, options, key }) {
  const stream = asksForSegments(options);
  const data = options.map(([option, value]) => `${pythonText(option)}: ${pythonText(value)}`).join(', ');
  const headers = [
    ...(key ? ['"Authorization": "Bearer " + os.environ["API_KEY"]'] : []),
    ...(stream ? [`"Accept": ${pythonText(NDJSON)}`] : []),
  ];
  const modules = [...(stream ? ['import json'] : []), ...(key ? ['import os'] : [])];
  return [
    ...(modules.length ? [...modules, ''] : []),
    'import requests',
    '',
    `with open(${pythonText(name)}, "rb") as file:`,
    '    response = requests.post(',
    `        ${pythonText(String(new URL('recognize', BASE)))},`,
    ...(headers.length ? [`        headers={${headers.join(', ')}},`] : []),
    '        files={"file": file},',
    ...(data ? [`        data={${data}},`] : []),
    ...(stream ? ['        stream=True,'] : []),
    '    )',
    'response.raise_for_status()',
    ...(stream ? ['for line in response.iter_lines():', '    print(json.loads(line))'] : ['print(response.json())']),
  ].join('\n');
}

/**
 * @param {import('../api/http-api.js').Options} live
 * @param {{key: boolean}} call
 */
function liveShellLine(live, { key }) {
  return [
    `${key ? 'SER_API_KEY="$API_KEY" ' : ''}emotion2vec-service stream mic`,
    ...live.map(([option, value]) => `--${option.replace('_', '-')} ${shellWord(value)}`),
    `--url ${shellWord(String(BASE))}`,
  ].join(' \\\n  ');
}

/**
 * @param {import('../api/http-api.js').Options} live
 * @param {{name: string, key: boolean}} call
 */
function livePythonLines(live, { name, key }) {
  const parameters = live.map(([option, value]) => `${option}=${/^[\d.]+$/.test(value) ? value : pythonText(value)}`);
  return [
    'import asyncio',
    ...(key ? ['import os'] : []),
    '',
    'import soundfile',
    'from emotion2vec_client import open_stream',
    '',
    'async def send(stream, samples):',
    '    await stream.send(samples.tobytes())',
    '    await stream.end()',
    '',
    'async def main():',
    `    samples, rate = soundfile.read(${pythonText(name)}, dtype="int16", always_2d=True)`,
    '    async with (',
    '        open_stream(',
    `            ${pythonText(String(BASE))},`,
    '            sampling_rate=rate,',
    '            encoding="s16le",',
    '            channels=samples.shape[1],',
    ...(key ? ['            api_key=os.environ["API_KEY"],'] : []),
    ...[...parameters, 'late="wait"'].map((parameter) => `            ${parameter},`),
    '        ) as stream,',
    '        asyncio.TaskGroup() as tasks,',
    '    ):',
    '        tasks.create_task(send(stream, samples))',
    '        async for event in stream:',
    '            print(event)',
    '',
    'asyncio.run(main())',
  ].join('\n');
}

/**
 * A file name for curl's -F option, quoted if it has characters that are special there.
 *
 * @param {string} name
 */
function curlFile(name) {
  return /[,;"\\]/.test(name) ? `"${name.replace(/[\\"]/g, '\\$&')}"` : name;
}

/** @param {string} text */
function shellWord(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @param {string} text */
function pythonText(text) {
  return JSON.stringify(text); // the escapes of JSON are valid in Python
}

/**
 * Copy the text of an element to the clipboard.
 *
 * @param {HTMLElement} element
 * @returns {Promise<boolean>} whether it was copied
 */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent ?? '');
    return true;
  } catch {
    // Not in a secure context, or not allowed: select the text, so that the user can copy it.
    getSelection()?.selectAllChildren(element);
    return false;
  }
}
