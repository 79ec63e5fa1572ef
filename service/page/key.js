// The API key, where the service wants one: asked for once, and kept until the tab is closed.

import { find } from './dom.js';
import { recall, remember } from './remember.js';

const NAME = 'api-key';

let key = recall(NAME, 'sessionStorage');

/** @type {Promise<boolean> | null} */
let asking = null;

/** @type {(() => void)[]} */
const followers = [];

/**
 * Be told when a key was given.
 *
 * @param {() => void} follower
 */
export function followKey(follower) {
  followers.push(follower);
}

/** Whether there is a key. */
export function hasKey() {
  return key !== null;
}

/**
 * What every request carries.
 *
 * @returns {Record<string, string>}
 */
export function keyHeaders() {
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/**
 * The same for a WebSocket, for which scripts can set no headers: protocols to choose from, of which the service takes
 * the first.
 *
 * @returns {string[]}
 */
export function keyProtocols() {
  if (key === null) {
    return [];
  }
  const escaped = encodeURIComponent(key).replace(/[()]/g, (bracket) => (bracket === '(' ? '%28' : '%29'));
  return ['emotion2vec.stream', `bearer.${escaped}`];
}

/**
 * Ask the person for a key; several requests that need one at the same time ask once.
 *
 * @returns {Promise<boolean>} whether one was given
 */
export function askForKey() {
  asking ??= ask().finally(() => {
    asking = null;
  });
  return asking;
}

/** @returns {Promise<boolean>} */
function ask() {
  const dialog = find('key-dialog', HTMLDialogElement);
  const input = find('key-input', HTMLInputElement);
  find('key-refused', HTMLElement).hidden = key === null;
  input.value = '';
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      'close',
      () => {
        const given = dialog.returnValue === 'use' ? input.value.trim() : '';
        if (given) {
          key = given;
          remember(NAME, given, 'sessionStorage');
          for (const follower of followers) {
            follower();
          }
        }
        resolve(given !== '');
      },
      { once: true },
    );
  });
}
