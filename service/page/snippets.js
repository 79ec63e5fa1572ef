// The lines that do the same without the page.

import { BASE, inSegments, LINES } from './api.js';
import { find } from './dom.js';
import { setText } from './language.js';

/**
 * @typedef {object} Call
 * @property {string} name of the file
 * @property {import('./api.js').Options} options
 * @property {boolean} key whether a key is needed
 */

/** @type {Call} */
let shown = { name: '', options: [], key: false };

/** Start the choice between languages, and the button that copies. */
export function startSnippets() {
  find('code-choice', HTMLElement).addEventListener('change', write);
  const button = find('copy', HTMLButtonElement);
  button.addEventListener('click', async () => {
    const done = await copy(find('code', HTMLElement));
    setText(button, done ? 'code.copied' : 'code.failed');
    setTimeout(() => setText(button, 'code.copy'), 2000);
  });
}

/** @param {Call} call */
export function showSnippets(call) {
  shown = call;
  write();
}

function write() {
  const python = find('code-python', HTMLInputElement).checked;
  find('code', HTMLElement).textContent = python ? pythonLines(shown) : curlLine(shown);
}

/** @param {Call} call */
function curlLine({ name, options, key }) {
  const parts = ['curl'];
  if (inSegments(options)) {
    parts.push('--no-buffer', `-H ${shellWord(`Accept: ${LINES}`)}`);
  }
  if (key) {
    parts.push('-H "Authorization: Bearer $API_KEY"');
  }
  parts.push(`-F ${shellWord(`file=@${curlFile(name)}`)}`);
  parts.push(...options.map(([option, value]) => `-F ${shellWord(`${option}=${value}`)}`));
  parts.push(shellWord(String(new URL('recognize', BASE))));
  return parts.join(' \\\n  ');
}

/** @param {Call} call */
function pythonLines({ name, options, key }) {
  const stream = inSegments(options);
  const data = options.map(([option, value]) => `${pythonText(option)}: ${pythonText(value)}`).join(', ');
  const headers = [
    ...(key ? ['"Authorization": "Bearer " + os.environ["API_KEY"]'] : []),
    ...(stream ? [`"Accept": ${pythonText(LINES)}`] : []),
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
 * In quotes of curl's own where a comma or a semicolon would mean something to it.
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
  return JSON.stringify(text); // JSON's escapes are Python's as well
}

/**
 * @param {HTMLElement} element
 * @returns {Promise<boolean>}
 */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent ?? '');
    return true;
  } catch {
    // Not in a secure context, or not allowed: select it, so that the person can.
    getSelection()?.selectAllChildren(element);
    return false;
  }
}
