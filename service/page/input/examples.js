// The bundled example clips, shown with stored answers that are marked as such.

import { find, make, showNotice } from '../common/dom.js';
import { emojiElement, emotionElement } from '../common/emotion-scores.js';
import { emotionOf } from '../common/emotions.js';

/** @typedef {{options: Record<string, string>, answers: Record<string, import('../api/http-api.js').Answer>}} Stored */

/** The folder of the page's files. */
const FILES = new URL('../', import.meta.url);

/**
 * Create a button for each example.
 *
 * @param {(name: string, blob: Blob, answer: import('../api/http-api.js').Answer, options: import('../api/http-api.js').Options) => void} onExample
 */
export async function startExamples(onExample) {
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
    const button = make('button', { type: 'button', class: 'example' }, emojiElement(emotion), emotionElement(emotion));
    button.addEventListener('click', async () => {
      showNotice(notice, null);
      try {
        onExample(name, await load(`examples/${name}`, (response) => response.blob()), answer, options);
      } catch {
        showNotice(notice, 'examples.failed');
      }
    });
    place.append(make('li', {}, button));
  }
}

/**
 * Fetch one of the page's files.
 *
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
