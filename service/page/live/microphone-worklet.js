// Runs in the browser's audio thread: collects the samples of the microphone into 16-bit chunks.

/** Chunks per second; their length adds to the delay of the results. */
const CHUNKS_PER_SECOND = 20;

class SampleCollector extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Int16Array(Math.round(sampleRate / CHUNKS_PER_SECOND));
    this.filled = 0;
    this.power = 0;
    this.ended = false;
    this.port.onmessage = () => {
      this.ended = true;
      this.post();
      this.port.postMessage(null); // marks the end
    };
  }

  /**
   * @param {Float32Array[][]} inputs
   * @returns {boolean} whether to keep the processor running
   */
  process([[samples]]) {
    if (this.ended) {
      return false;
    }
    for (const sample of samples ?? []) {
      const bounded = Math.min(Math.max(sample, -1), 1);
      this.chunk[this.filled++] = bounded < 0 ? bounded * 32_768 : bounded * 32_767;
      this.power += sample * sample;
      if (this.filled === this.chunk.length) {
        this.post();
      }
    }
    return true;
  }

  /** Post the collected samples and their mean power. */
  post() {
    if (this.filled) {
      const samples = this.chunk.slice(0, this.filled);
      this.port.postMessage({ samples, power: this.power / this.filled }, [samples.buffer]);
      this.filled = 0;
      this.power = 0;
    }
  }
}

registerProcessor('sample-collector', SampleCollector);
