// The bundled clips, with answers that were computed before and are marked as such.

import { find, make } from './dom.js';
import { emoji, emotionOf } from './emotions.js';
import { setEmotion } from './language.js';
import { showNotice } from './sentences.js';

/** @typedef {{options: Record<string, string>, answers: Record<string, import('./api.js').Answer>}} Stored */

const FILES = new URL('./', import.meta.url);

/**
 * Start the buttons.
 *
 * @param {(name: string, blob: Blob, answer: import('./api.js').Answer, options: import('./api.js').Options) => void} take
 */
export async function startExamples(take) {
  const notice = find('examples-notice', HTMLElement);
  const place = find('examples', HTMLElement);
  let stored;
  try {
    stored = /** @type {Stored} */ (await load('examples.json', (response) => response.json()));
  } catch {
    showNotice(notice, 'examples.failed');
    return;
  }
  const options = Object.entries(stored.options);
  for (const [name, answer] of Object.entries(stored.answers)) {
    const emotion = emotionOf(name.replace(/\.\w+$/, ''));
    const text = make('span');
    setEmotion(text, emotion);
    const button = make('button', { type: 'button', class: 'example' });
    button.append(make('span', { class: 'emoji', 'aria-hidden': 'true' }, emoji(emotion)), text);
    button.addEventListener('click', async () => {
      showNotice(notice, null);
      try {
        take(name, await load(`examples/${name}`, (response) => response.blob()), answer, options);
      } catch {
        showNotice(notice, 'examples.failed');
      }
    });
    place.append(make('li', {}, button));
  }
}

/**
 * @template T
 * @param {string} path
 * @param {(response: Response) => Promise<T>} read
 * @returns {Promise<T>}
 */
async function load(path, read) {
  const response = await fetch(new URL(path, FILES));
  if (!response.ok) {
    throw new Error(path);
  }
  return read(response);
}
